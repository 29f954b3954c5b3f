"""Convert a checkpoint to DeepSpeed's universal form, which any number of ranks can read."""

import argparse
import logging
import os
import shutil
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from model.artifacts.manifest import Layout
from model.training.checkpointing.disk import disk_error
from pipeline.errors import UserError

FOLDER = "universal"
SHARDED = (1, 2)
"""ZeRO stages that read each other's universal checkpoints."""


def check_convertible(folder: Path, written: Layout, wanted: Layout) -> None:
    """Raise UserError where DeepSpeed cannot convert one layout to the other."""
    stages = {written.zero_stage, wanted.zero_stage}
    if stages <= set(SHARDED) or stages == {3}:
        return
    raise UserError(
        f"{folder} was written by {written}; DeepSpeed cannot read it with {wanted}; expected the ZeRO stage it was "
        "written with, or 1 or 2 for one of 1 or 2; fix: set zero_optimization.stage in the DeepSpeed config"
    )


def convert(checkpoint: Path) -> Path:
    """Write the universal form of a checkpoint beside it. Returns the directory that holds it under the same name.

    Raises UserError where the disk is full.
    """
    from deepspeed.checkpoint import ds_to_universal

    target = checkpoint.parent / FOLDER
    work = checkpoint.parent / f".{FOLDER}.partial"
    for leftover in (target, work):
        shutil.rmtree(leftover, ignore_errors=True)
    arguments = argparse.Namespace(
        input_folder=str(checkpoint),
        output_folder=str(work / checkpoint.name),
        num_extract_workers=1,  # in this process: nothing is forked
        num_merge_workers=1,
        keep_temp_folder=False,
        strict=True,
        inject_missing_state=True,
    )
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    try:
        with (
            Path(os.devnull).open("w", encoding="utf-8") as nowhere,
            redirect_stdout(nowhere),
            redirect_stderr(nowhere),
        ):
            ds_to_universal.main(arguments)
        work.rename(target)
    except (OSError, RuntimeError) as error:  # torch wraps a full disk in a RuntimeError
        shutil.rmtree(work, ignore_errors=True)
        problem = "cannot be made readable for this number of ranks"
        raise disk_error(checkpoint, problem, error, "it is intact") from None
    return target
