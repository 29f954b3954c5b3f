"""Convert a checkpoint to DeepSpeed's universal format, which any number of ranks can read.

checkpoints.find_checkpoint does so if the checkpoint has another number of ranks or another ZeRO stage.
"""

import argparse
import io
import itertools
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import torch

from model.artifacts.manifest import Layout
from model.training.checkpointing.best_model import HUGGING_FACE
from model.training.checkpointing.disk import report_disk_error
from pipeline.errors import UserError

MOMENTS = "exp_avg", "exp_avg_sq"
"""Names of the moments of Adam in DeepSpeed's checkpoints."""
UNIVERSAL = "universal"
"""Directory of a converted checkpoint, beside the checkpoints of its stage."""


def check_convertible(folder: Path, source: Layout, target: Layout) -> None:
    """Check that DeepSpeed can convert a checkpoint from one layout to another. Raises UserError if it cannot."""
    stages = {source.zero_stage, target.zero_stage}
    if stages <= {1, 2} or stages == {3}:
        return
    if stages == {0}:
        raise UserError(
            f"{folder}: written by {source}; at ZeRO 0 DeepSpeed cannot change the precision; expected "
            f"{source.precision}, got {target.precision}; fix: set {source.precision} in the DeepSpeed config"
        )
    expected = "1 or 2" if source.zero_stage in (1, 2) else source.zero_stage
    raise UserError(
        f"{folder}: written by {source}; DeepSpeed cannot read it with {target}; expected ZeRO {expected}, got "
        f"{target.zero_stage}; fix: set zero_optimization.stage in the DeepSpeed config"
    )


def convert(checkpoint: Path) -> Path:
    """Convert a checkpoint to the universal format, in a directory beside it. Returns the path of the result.

    DeepSpeed converts the moments of Adam only. So the momentum of Muon, a mean over about 20 steps, is lost.
    Raises UserError if the disk is full.
    """
    from deepspeed.checkpoint import ds_to_universal

    target = checkpoint.parent / UNIVERSAL
    work = checkpoint.parent / f".{UNIVERSAL}.partial"
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    problem = "cannot be made readable for this number of ranks"
    with report_disk_error(checkpoint, problem, "it is intact", work):
        copy = work / "source"
        of_muon = _copy_with_moments(checkpoint, copy)
        arguments = argparse.Namespace(
            input_folder=str(copy if of_muon else checkpoint),
            output_folder=str(work / checkpoint.name),
            num_extract_workers=1,  # work in this process, without forks
            num_merge_workers=1,
            keep_temp_folder=False,
            strict=True,
            inject_missing_state=True,
        )
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            ds_to_universal.main(arguments)
        for name, moment in itertools.product(of_muon, MOMENTS):
            (work / checkpoint.name / "zero" / name / f"{moment}.pt").unlink()
        shutil.rmtree(copy, ignore_errors=True)
        work.rename(target)
    return target / checkpoint.name


def _copy_with_moments(checkpoint: Path, copy: Path) -> set[str]:
    """Copy a checkpoint with moments of 0 for the weights of Muon, as the conversion expects them for all weights.

    Returns the names of these weights. Without any, nothing is copied.
    """
    of_muon = set()
    for file in checkpoint.glob("*_optim_states.pt"):
        content = torch.load(file, weights_only=False)
        state = content["optimizer_state_dict"]
        if "single_partition_of_fp32_groups" not in state:  # ZeRO 3, without Muon
            break
        groups = state["base_optimizer_state"]["state"]
        for group, weights in enumerate(state["single_partition_of_fp32_groups"]):
            if MOMENTS[0] not in groups[group]:
                groups[group] = dict.fromkeys(MOMENTS, torch.zeros_like(weights))
                of_muon.update(state["param_slice_mappings"][group])
        if not of_muon:  # the files of all ranks have the same groups
            break
        if not copy.exists():
            shutil.copytree(checkpoint, copy, ignore=shutil.ignore_patterns(HUGGING_FACE))
        torch.save(content, copy / file.name)
    return of_muon


@contextmanager
def correct_loading(engine: Any) -> Iterator[None]:
    """Correct the optimizer of a DeepSpeed engine after a block that loads a checkpoint into it.

    Universal loading replaces the loss scaler by that of the checkpoint, even if that one has another precision. It
    also leaves Adam's step counts on the CPU, in the dtype of the file.
    """
    optimizer, names = engine.optimizer, ("loss_scaler", "dynamic_loss_scale")
    own = {name: getattr(optimizer, name) for name in names if hasattr(optimizer, "loss_scaler")}
    yield
    if own and not (own["loss_scaler"].dynamic and optimizer.loss_scaler.dynamic):
        for name, value in own.items():
            setattr(optimizer, name, value)
    align_step_counts(engine.basic_optimizer)


def align_step_counts(optimizer: torch.optim.Optimizer) -> None:
    """Move each step count of an Adam optimizer to the device of its weights, as a float32 scalar of its own.

    Fused Adam on a GPU reads and increments it there.
    """
    for weights, state in optimizer.state.items():
        if "step" in state:
            step = torch.as_tensor(state["step"]).detach().clone()
            state["step"] = step.reshape(()).to(weights.device, torch.float32)
