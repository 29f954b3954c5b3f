"""The commands that this repository's hostfile suggests, on a machine without ssh and pdsh."""

import re
import shlex
import shutil
import subprocess

import pytest

from model.cluster.doctor import WITHOUT_SSH
from tests.conftest import ROOT
from tests.integration.conftest import BIN, ENVIRONMENT

COMMAND = "deepspeed --hostfile hostfile --no_ssh_check --master_addr 127.0.0.1 train.py"


def test_all_places_suggest_the_same_command():
    assert COMMAND in WITHOUT_SSH.format(hostfile="hostfile")
    for name in ("hostfile", "docs/cluster.md", "train.py"):
        assert COMMAND in re.sub(r"\s+", " ", (ROOT / name).read_text()), name


@pytest.mark.long
@pytest.mark.processes
def test_the_hostfile_starts_this_machine_without_ssh(tmp_path):
    (tmp_path / "train.py").write_text('import os\nprint("rank", os.environ["RANK"], "of", os.environ["WORLD_SIZE"])\n')
    shutil.copy(ROOT / "hostfile", tmp_path)
    environment = {**ENVIRONMENT, "PATH": str(BIN)}
    run = {"cwd": tmp_path, "env": environment, "capture_output": True, "text": True, "check": False, "timeout": 120}
    done = subprocess.run([BIN / "deepspeed", *shlex.split(COMMAND)[1:]], **run)
    assert done.returncode == 0, done.stderr
    assert "rank 0 of 1" in done.stdout
