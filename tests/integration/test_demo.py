"""`make demo` in a copy of the checkout, on fewer rows: the complete workflow, and a model that has learned."""

import re
import shlex
import shutil
import subprocess

import pytest

from tests.conftest import ROOT
from tests.integration.conftest import ENVIRONMENT

pytestmark = pytest.mark.processes


@pytest.mark.timeout(600)
def test_make_demo_trains_a_model_that_learned(tmp_path):
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    if not tracked:
        pytest.skip("not a git checkout")
    for name in tracked:
        if not name.startswith("tests/"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / ".venv").symlink_to(ROOT / ".venv")
    done = subprocess.run(
        ["make", "demo", "ROWS=5000", "SET=finetune.max_epochs=3 pretrain.max_epochs=1", "-o", ".venv/core"],
        cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    model, ceiling = (float(re.search(rf"{name} +(\d\.\d+)", done.stdout)[1]) for name in ("trained model", "ceiling"))
    assert 0.3 < model < ceiling < 0.9
    for place in ("runs/demo", "runs/demo/model", "demo/dataset.duckdb"):
        assert place in done.stdout
        assert (tmp_path / place).exists()
    assert len(re.findall(r"steps \(", done.stderr)) > 3
    # The command of docs/training.md that shows the progress of a run.
    page = (ROOT / "docs" / "training.md").read_text()
    (query,) = re.findall(r"^promoter-bert query .*metrics\.jsonl.*$", page, re.MULTILINE)
    shown = subprocess.run(
        shlex.split(query), cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=True
    )
    assert shown.stdout.count("runs/demo/metrics.jsonl") == 5
