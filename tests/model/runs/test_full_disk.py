"""A disk that fills up at any moment of a run."""

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
from tests.model.runs.trainer import unfinished, weights

pytestmark = pytest.mark.processes


@pytest.fixture
def disk(run):
    """The run on a small disk of its own; called with the bytes that are to be free, fills it up to there."""
    if os.geteuid() != 0:
        pytest.skip("a small disk is mounted, which needs root")
    place = Path("runs").absolute()
    aside = place.with_name("aside")
    place.rename(aside)
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", place], check=False).returncode:
        pytest.skip("nothing can be mounted here")

    def fill(free):
        with (place / "filler").open("wb") as file:
            file.write(bytes(max(shutil.disk_usage(place).free - free, 0)))

    try:
        yield aside, fill
    finally:
        gc.collect()  # an error's traceback keeps torch's file open until then
        subprocess.run(["umount", place], check=True)


def test_full_disk_ends_the_run_with_a_clear_error(trainer, finished, run, disk, before_step):
    """Before the start, and before the last steps with room for less or more of what is still to be written."""
    aside, fill = disk
    ends = set()
    rooms = (0, 45_000, 130_000, 200_000, 216_000, 248_000, 256_000)
    for moment, free in [(0, 0), (0, 9_000), *((35, free) for free in rooms)]:
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(aside / "paper", run)
        unfinished(run)
        before_step(moment, lambda free=free: [shutil.rmtree(run / "model"), fill(free)])
        if not moment:
            (run / "run.json").unlink()
            fill(free)
        error = problem(trainer)
        if error:
            assert "No space left" in error or "0 MB are free" in error
            assert re.search("[Mm]ake room, then", error)
            ends.add(re.search(r"metrics|\w+(?= cannot be written)|[\w.]+(?=: cannot write)", error)[0])
        assert {find_corruption(path) for path in (run / "checkpoints").glob("*/step-*")} == {""}
        assert not list(run.rglob("*partial*"))
        (run.parent / "filler").unlink()
        before_step(0, lambda: None)
        trainer.train()
        assert weights(run) == weights(finished)
    assert {"config.yaml", "checkpoint", "model"} < ends


def problem(trainer):
    try:
        trainer.train()
    except UserError as error:
        return str(error)
    return ""


def test_conversion_of_a_checkpoint_needs_disk_space(run, disk):
    aside, fill = disk
    checkpoint = run / "checkpoints" / "finetune" / "step-000000038"
    shutil.copytree(aside / "paper", run)
    fill(4096)
    with pytest.raises(UserError, match=r"cannot be made readable for this number of ranks, 0 MB are free"):
        convert(checkpoint)
    assert find_corruption(checkpoint) == ""
    assert sorted(path.name for path in checkpoint.parent.iterdir() if path.name.startswith((".", "u"))) == []
