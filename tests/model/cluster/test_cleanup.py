import os
import subprocess
import sys
import time

import pytest

from model.cluster.cleanup import find_processes, kill_processes
from model.runs.status import LAUNCH

pytestmark = pytest.mark.processes


def test_only_processes_of_one_launch_are_killed():
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    mine, other = (subprocess.Popen(sleep, env={**os.environ, LAUNCH: launch}) for launch in ("mine", "other"))
    try:
        deadline = time.monotonic() + 10
        while [process.pid for process in find_processes("mine")] != [mine.pid]:
            assert time.monotonic() < deadline
        (line,) = kill_processes("mine", 0)
        assert "time.sleep" in line
        assert mine.wait(10) is not None
        assert kill_processes("mine", 0) == []
        assert other.poll() is None
    finally:
        for process in (mine, other):
            process.kill()
            process.wait()
