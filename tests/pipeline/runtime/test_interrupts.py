"""Tests of deferred Ctrl-C."""

import signal
import threading

import pytest

from pipeline.runtime.interrupts import deferred_interrupts


@pytest.mark.parametrize("presses", [1, 2])
@pytest.mark.parametrize("depth", [1, 2])
def test_ctrl_c_is_raised_at_the_end(presses, depth):
    done = []

    def run(depth):
        with deferred_interrupts():
            if depth > 1:
                run(depth - 1)
            for press in range(presses):
                signal.raise_signal(signal.SIGINT)
                done.append((depth, press))

    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run(depth)
    assert done == [(level, press) for level in range(1, depth + 1) for press in range(presses)]
    assert signal.getsignal(signal.SIGINT) is handler


def test_an_error_ends_the_block():
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(ZeroDivisionError), deferred_interrupts():
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGINT) is handler


@pytest.mark.parametrize("handler", [signal.SIG_IGN, signal.SIG_DFL])
def test_other_handlers_stay(handler):
    earlier = signal.signal(signal.SIGINT, handler)
    try:
        with deferred_interrupts():
            assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, earlier)


def test_another_thread_runs_the_block():
    """Only the main thread may set a signal handler."""
    done = []

    def run():
        with deferred_interrupts():
            done.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert done == [signal.getsignal(signal.SIGINT)]
