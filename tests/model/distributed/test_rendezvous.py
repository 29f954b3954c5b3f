import base64
import json
import os
import signal
import socket
import subprocess
import sys

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.processes

STARTS = """
import os, signal, subprocess, sys
late = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"], env=os.environ | {"RANK": "1"})
late.send_signal(signal.SIGSTOP)
script = "from model.distributed import process_group as d, rendezvous as m; m.JOIN_TIMEOUT_S = 2; d.init_group()"
first = subprocess.run([sys.executable, "-c", script], env=os.environ | {"RANK": "0"})
print(first.returncode, late.wait())
"""


def test_missing_rank_is_reported_within_the_time_limit():
    """The rank freezes before it has a watchdog. Its host is known from the launcher's command line."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    variables = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "LOCAL_SIZE": "2"}
    slots = base64.urlsafe_b64encode(json.dumps({"host1": [0], "host2": [0]}).encode()).decode()
    done = subprocess.run(
        [sys.executable, "-c", STARTS, "deepspeed.launcher.launch", f"--world_info={slots}"], cwd=ROOT,
        env={**os.environ, **variables}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.stdout.split() == ["1", str(-signal.SIGKILL)], done.stderr
    assert "lost: rank 1 on host2: did not arrive within 2 s" in done.stderr
    assert f"at 127.0.0.1:{port}" in done.stderr
    assert "Traceback" not in done.stderr
