"""The README's first training command on two real hosts, over their own ssh and network."""

import hashlib
import json
import shutil

import pyarrow.parquet as pq
import pytest

from tests.integration import hosts as lab
from tests.integration.conftest import Workspace


@pytest.mark.timeout(600)
def test_two_hosts_train_the_very_weights_that_one_host_trains(prepared, tmp_path):
    if lab.missing():
        pytest.skip(lab.missing())
    shutil.copytree(prepared.folder, tmp_path / "work", ignore=shutil.ignore_patterns("runs"))
    workspace = Workspace(tmp_path / "work")
    (workspace.folder / "hostfile").write_text("host1 slots=1\nhost2 slots=1\n")
    # One thread a process in both runs: the order of a sum over threads shows in the last bits.
    (workspace.folder / ".deepspeed_env").write_text("OMP_NUM_THREADS=1\n")
    with lab.two_hosts() as hosts:
        before = hosts.received(2)
        workspace.run(*hosts.on(1, "deepspeed", "--hostfile", "hostfile", "train.py"), timeout=300)
        assert hosts.received(2) - before > 1_000_000  # gradients went over the cable
    workspace.run("env", "OMP_NUM_THREADS=1", "deepspeed", "--num_accelerators", "2", "train.py", "run.name=one-host")
    runs = [workspace.folder / "runs" / name for name in ("paper", "one-host")]
    for model in ("pretrained", "model"):
        a, b = (hashlib.sha256((run / model / "model.safetensors").read_bytes()).hexdigest() for run in runs)
        assert a == b, model
    a, b = (json.loads((run / "summary.json").read_text())["scores"] for run in runs)
    assert a == b
    a, b = (pq.read_table(run / "predictions.parquet") for run in runs)
    assert a.equals(b)
