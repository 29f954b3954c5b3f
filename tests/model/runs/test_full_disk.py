"""A disk that becomes full at any time of a run."""

import gc
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from model.artifacts.manifest import find_corruption
from model.training.checkpointing.reshard import convert
from pipeline.errors import UserError
from tests.model.runs.trainer import make_unfinished, weights

pytestmark = pytest.mark.processes


@pytest.fixture
def disk(run):
    """Mount a small disk at runs/. Returns the original folder, and a function that leaves some free bytes."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    runs = Path("runs").absolute()
    original = runs.with_name("original")
    runs.rename(original)
    runs.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", runs], check=False).returncode:
        pytest.skip("a disk cannot be mounted here")

    def fill(free):
        with (runs / "filler").open("wb") as file:
            file.write(bytes(max(shutil.disk_usage(runs).free - free, 0)))

    try:
        yield original, fill
    finally:
        gc.collect()  # the traceback of an error keeps torch's file open
        subprocess.run(["umount", runs], check=True)


def test_full_disk_ends_the_run_with_a_clear_error(trainer, finished, run, disk, before_step):
    """The disk is full before the start, or has too little space for some of the last files."""
    original, fill = disk
    problems = set()
    sizes = (0, 45_000, 130_000, 200_000, 216_000, 248_000, 256_000)
    for step, free in [(0, 0), (0, 9_000), *((35, free) for free in sizes)]:
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(original / "paper", run)
        make_unfinished(run)
        before_step(step, lambda free=free: [shutil.rmtree(run / "model"), fill(free)])
        if not step:
            (run / "run.json").unlink()
            fill(free)
        error = train_until_error(trainer)
        if error:
            assert "No space left" in error or "0 MB are free" in error
            assert re.search("free (disk )?space, then", error)
            problems.add(re.search(r"metrics|\w+(?= cannot be written)|[\w.]+(?=: cannot write)", error)[0])
        assert {find_corruption(path) for path in (run / "checkpoints").glob("*/step-*")} == {""}
        assert not list(run.rglob("*partial*"))
        (run.parent / "filler").unlink()
        before_step(0, lambda: None)
        trainer.train()
        assert weights(run) == weights(finished)
    assert {"config.yaml", "checkpoint", "model"} < problems


def train_until_error(trainer):
    try:
        trainer.train()
    except UserError as error:
        return str(error)
    return ""


def test_conversion_of_a_checkpoint_needs_disk_space(run, disk):
    original, fill = disk
    checkpoint = run / "checkpoints" / "finetune" / "step-000000038"
    shutil.copytree(original / "paper", run)
    fill(4096)
    with pytest.raises(UserError, match=r"cannot be made readable for this number of ranks, 0 MB are free"):
        convert(checkpoint)
    assert find_corruption(checkpoint) == ""
    assert sorted(path.name for path in checkpoint.parent.iterdir() if path.name.startswith((".", "u"))) == []
