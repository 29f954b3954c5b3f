"""Results of a test script that runs in processes of its own, as it sets up torch or DeepSpeed in its own way."""

import json
import os
import subprocess
import sys

from tests.conftest import ROOT

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
"""Arguments of Python that start a script on two ranks."""


def without_dropout(config):
    return config.model_copy(update={"model": config.model.model_copy(update={"dropout": 0.0})})


def run_script(script, folder, config, timeout_s, launcher=()):
    """Run a script with a configuration in a folder. Returns the values that it wrote to results.json."""
    (folder / "config.json").write_text(config.model_dump_json())
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *launcher, str(script), "config.json"], cwd=folder, env=environment, capture_output=True,
        text=True, timeout=timeout_s, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((folder / "results.json").read_text())
