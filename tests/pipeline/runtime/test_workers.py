"""Tests of worker processes: results, killed workers, and Ctrl-C at any moment."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from pipeline.errors import UserError
from pipeline.runtime.workers import worker_pool

PROGRAM = """
import sys
import time
from pathlib import Path
from pipeline.runtime.workers import worker_pool

def work(folder, number, seconds):
    (folder / f"{number}.begun").touch()
    time.sleep(seconds)
    (folder / f"{number}.ended").touch()

if __name__ == "__main__":
    folder, calls, seconds = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    with worker_pool(2, "killed") as pool:
        list(pool.run_all(work, [(folder, number, seconds) for number in range(calls)]))
"""


def start(folder, calls, seconds):
    """Start a program that runs calls in two workers; return it after some calls have begun."""
    program = folder / "program.py"
    program.write_text(PROGRAM)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    process = subprocess.Popen(
        [sys.executable, program, folder, str(calls), str(seconds)],
        env=environment, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    while len(list(folder.glob("*.begun"))) < 2:
        assert process.poll() is None
        time.sleep(0.001)
    return process


def numbers(folder, suffix):
    return sorted(int(path.stem) for path in folder.glob(f"*.{suffix}"))


def interrupt(process, *gaps):
    """Send Ctrl-C to a program and its workers, again after each gap in seconds; wait until all have ended."""
    children = psutil.Process(process.pid).children()
    os.killpg(process.pid, signal.SIGINT)
    for gap in gaps:
        time.sleep(gap)
        os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=60) != 0
    assert psutil.wait_procs(children, timeout=60)[1] == []


@pytest.mark.parametrize("workers", [1, 3])
def test_results(workers):
    with worker_pool(workers, "killed") as pool:
        assert sorted(pool.run_all(abs, [(-number,) for number in range(20)])) == list(range(20))
        reads = [pool.submit(divmod, number, 7) for number in range(20)]
        assert [read() for read in reads] == [divmod(number, 7) for number in range(20)]
        with pytest.raises(ZeroDivisionError):
            pool.submit(divmod, 1, 0)()


def test_results_in_another_thread():
    """Only the main thread may set a signal handler."""
    results = []

    def use():
        with worker_pool(1, "killed") as pool:
            results.extend(pool.run_all(abs, [(-1,), (-2,)]))

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert sorted(results) == [1, 2]


def test_killed_worker():
    earlier = signal.getsignal(signal.SIGINT)
    with pytest.raises(UserError, match="the message"), worker_pool(2, "the message") as pool:
        list(pool.run_all(os.kill, [(pool.submit(os.getpid)(), signal.SIGKILL)]))
    assert signal.getsignal(signal.SIGINT) == earlier


def test_first_ctrl_c_waits_for_running_calls(tmp_path):
    process = start(tmp_path, calls=500, seconds=0.5)
    interrupt(process)
    begun = numbers(tmp_path, "begun")
    assert begun == numbers(tmp_path, "ended")
    assert 2 <= len(begun) < 20


@pytest.mark.parametrize("seed", range(4))
def test_second_ctrl_c_at_random_moments(tmp_path, seed):
    """All calls would take five minutes."""
    moments = random.Random(seed)
    process = start(tmp_path, calls=600, seconds=1)
    time.sleep(moments.choice((0, 0.05)) * moments.random())
    interrupt(process, moments.choice((0, 0.001, 0.1)) * moments.random())
    assert len(numbers(tmp_path, "ended")) < 20
