import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

SCRIPT = Path(__file__).parent / "zero_and_precision.py"
TOLERANCE = {"fp32": 1e-5, "bf16": 0.05, "fp16": 0.01}
"""Of each loss, relative to that of ZeRO 0 in float32: bf16 has 8 bits, fp16 has 11."""


@pytest.fixture(scope="module")
def found(made, tmp_path_factory):
    """The first losses on two ranks at each ZeRO stage and precision; dropout off."""
    folder = tmp_path_factory.mktemp("matrix")
    config = made.config.model_copy(update={"model": made.config.model.model_copy(update={"dropout": 0.0})})
    (folder / "config.json").write_text(config.model_dump_json())
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, str(SCRIPT), "config.json"], cwd=folder, env=environment, capture_output=True, text=True,
        timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((folder / "found.json").read_text())


@pytest.mark.parametrize("zero", range(4))
@pytest.mark.parametrize("precision", TOLERANCE)
def test_the_same_losses_at_every_zero_stage_and_precision(found, zero, precision):
    result = found[f"{zero} {precision}"]
    reference = found["0 fp32"]["losses"]
    print(zero, precision, max(abs(a / b - 1) for a, b in zip(result["losses"], reference, strict=True)), result["skipped"], result["scale"])
    assert result["problem"] == ""
    if not result["skipped"]:
        assert result["losses"] == pytest.approx(reference, rel=TOLERANCE[precision])


def test_overflow(found):
    print(found["overflow"])
