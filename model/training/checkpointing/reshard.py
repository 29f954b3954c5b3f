"""Convert a checkpoint to DeepSpeed's universal form, which any number of ranks can read.

checkpoints.find_checkpoint decides when: the checkpoint is of another number of ranks or ZeRO stage.
"""

import argparse
import io
import logging
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from model.artifacts.manifest import Layout
from model.training.checkpointing.disk import report_disk_error
from pipeline.errors import UserError

UNIVERSAL = "universal"
"""Directory of a converted checkpoint, beside the checkpoints of its stage."""


def check_convertible(folder: Path, written: Layout, required: Layout) -> None:
    """Raise UserError if DeepSpeed cannot convert one layout to the other."""
    stages = {written.zero_stage, required.zero_stage}
    if stages <= {1, 2} or stages == {3}:
        return
    raise UserError(
        f"{folder} was written by {written}; DeepSpeed cannot read it with {required}; expected the ZeRO stage it was "
        "written with, or 1 or 2 for one of 1 or 2; fix: set zero_optimization.stage in the DeepSpeed config"
    )


def convert(checkpoint: Path) -> Path:
    """Write the universal form of a checkpoint under the same name into a directory beside it. Returns its path.

    Raises UserError if the disk is full.
    """
    from deepspeed.checkpoint import ds_to_universal

    target = checkpoint.parent / UNIVERSAL
    work = checkpoint.parent / f".{UNIVERSAL}.partial"
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
    problem = "cannot be made readable for this number of ranks"
    with report_disk_error(checkpoint, problem, "it is intact", work):
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            ds_to_universal.main(arguments)
        work.rename(target)
    return target / checkpoint.name
