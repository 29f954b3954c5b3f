"""Ctrl-C at the start, in the midst and at the end of work that must not be left half done."""

import signal
import threading

import pytest

from pipeline.runtime.interrupts import uninterrupted


@pytest.fixture(autouse=True)
def ctrl_c():
    """Python's own handler, whatever the tests before have left."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_waits_for_the_end_of_the_block():
    done = []
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012
        with uninterrupted():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            done.append("work")
        done.append("never")
    assert done == ["work"]
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_an_error_passes_and_leaves_interrupts_as_they_were():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(ValueError, match="mine"), uninterrupted():
        raise ValueError("mine")
    assert signal.getsignal(signal.SIGINT) is before


def test_other_threads_do_their_work_without_it():
    done = []

    def work():
        with uninterrupted():
            done.append(1)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [1]
