"""Saving and resuming a stage: DeepSpeed's checkpoint, and where the stage stood."""

import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from model.distributed import World, from_leader, gathered
from pipeline.atomic import write_text
from pipeline.errors import UserError


@dataclass
class StageState:
    """Where a stage stands; with the engine's own state all that a resume needs.

    step: optimizer steps taken; epoch, consumed: promoters of that epoch taken, over all ranks; best: highest
    validation metric; waited: evaluations since; plateau: the scheduler's state; ended: no more steps.
    """

    step: int = 0
    epoch: int = 0
    consumed: int = 0
    best: float | None = None
    waited: int = 0
    plateau: dict[str, Any] = field(default_factory=dict)
    ended: bool = False


def save_checkpoint(engine: Any, folder: Path, state: StageState, keep: int, world: World) -> None:
    """Save under the step's name; `latest` names it only when every rank's part is written. All ranks call this."""
    tag = f"step-{state.step:09d}"
    client_state = {"stage_state": asdict(state), "ranks": world.ranks}
    engine.save_checkpoint(str(folder), tag=tag, client_state=client_state, save_latest=False)
    if world.leads:
        write_text(folder / "latest", tag)
        for old in sorted(folder.glob("step-*"))[:-keep]:
            shutil.rmtree(old, ignore_errors=True)


def resume(
    engine: Any, folder: Path, scheduler: torch.optim.lr_scheduler.ReduceLROnPlateau, world: World
) -> StageState:
    """Bring engine and scheduler to the last checkpoint, if there is one. All ranks call this.

    Raises UserError where it was written by another number of processes.
    """
    tag = from_leader(_latest(folder))
    if tag is None:
        return StageState()
    written_by = len(list((folder / tag).glob("*optim_states.pt")))
    if written_by not in (0, world.ranks):
        raise UserError(
            f"{folder / tag} was written by {written_by} processes, this run has {world.ranks}: start it with "
            f"{written_by} again, or remove {folder} to begin the stage anew"
        )
    path, client_state = engine.load_checkpoint(str(folder), tag=tag)
    if len({name is None for name in gathered(path)}) > 1 or path is None:
        raise UserError(f"{folder / tag}: not every process can read it; a run on several hosts needs a shared path")
    state = StageState(**client_state["stage_state"])
    scheduler.load_state_dict(state.plateau)
    return state


def _latest(folder: Path) -> str | None:
    try:
        return (folder / "latest").read_text(encoding="utf-8").strip()
    except OSError:
        return None
