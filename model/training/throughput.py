"""What a stage reports between two readings: loss, speed, waits. Sums stay on the device until they are read."""

import math
import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from model.bert.flops import StageCost
from model.distributed.process_group import World, sums_over_ranks
from model.runs.metric_log import Tracker
from model.training.checkpoints import StageState
from pipeline.errors import UserError
from pipeline.stream.stream import ShardStream, Step


@dataclass(frozen=True)
class Speed:
    """What utilisation is measured by. peak: operations a second of all devices in plain matrix products."""

    cost: StageCost
    peak: float


def peak_memory(device: torch.device) -> int:
    """Most bytes that this process has held: of the GPU, or resident on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


class Meter:
    """Running sums of one stage."""

    def __init__(self, name: str, world: World, tracker: Tracker, stream: ShardStream, speed: Speed) -> None:
        self.line = ""
        self._name, self._world, self._tracker, self._stream, self._speed = name, world, tracker, stream, speed
        self._sums = torch.zeros(3, dtype=torch.float64, device=world.device)
        self.restart()

    def steps(self, state: StageState) -> Iterator[Step]:
        """The steps left of the state's epoch; the time that each is waited for is counted."""
        steps = self._stream.epoch(state.epoch, state.consumed)
        while True:
            asked = time.monotonic()
            step = next(steps, None)
            self._waited += time.monotonic() - asked
            if step is None:
                return
            yield step

    def add(self, loss: torch.Tensor, count: torch.Tensor, correct: torch.Tensor) -> None:
        """A micro-batch of this rank."""
        self._sums += torch.stack([loss.double(), count.double(), correct.double()])

    def add_step(self, step: Step) -> None:
        """A step of all ranks."""
        batch = step.micro_batches[0]
        tokens, operations = self._speed.cost.of(batch.global_lengths)
        self._promoters += batch.global_rows
        self._tokens += tokens
        self._operations += operations

    def read(self, state: StageState, last_step: int, learning_rate: float, skipped: int, scale: float | None) -> None:
        """Log what happened since the last reading. All ranks call this. state.seconds grows by the time it took.

        skipped: steps not applied for overflow so far; scale: of the loss in fp16, else None.
        Raises UserError where the loss is no number any more.
        """
        loss, count, correct = sums_over_ranks(*self._sums)
        if not math.isfinite(loss):
            raise UserError(
                f"{self._name}: the loss is {loss} at step {state.step}; the last checkpoint is whole. "
                f"Try a lower {self._name}.learning_rate"
            )
        seconds = time.monotonic() - self._began
        state.seconds += seconds
        values = {"loss": loss / max(count, 1.0)}
        if self._speed.cost.mask_share is not None:
            values["accuracy"] = correct / max(count, 1.0)
        values |= {
            "learning_rate": learning_rate,
            "promoters_per_second": self._promoters / seconds,
            "tokens_per_second": self._tokens / seconds,
            "flop_utilisation": self._operations / seconds / self._speed.peak,
            "data_wait": self._waited / seconds,
            "memory_gigabytes": peak_memory(self._world.device) / 1e9,
            "skipped_steps": float(skipped),
            "seconds_left": (last_step - state.step) * state.seconds / state.step,
        }
        if scale is not None:
            values["loss_scale"] = scale
        self._tracker.log(self._name, state.step, self.epochs(state), values)
        self.line = (
            f"loss {values['loss']:.4f}, lr {learning_rate:.1e}, {values['promoters_per_second']:,.0f} promoters/s, "
            f"{values['tokens_per_second']:,.0f} tokens/s, {values['flop_utilisation']:.1%} of matmul, "
            f"data wait {values['data_wait']:.1%}, {values['memory_gigabytes']:.1f} GB"
            + (f", loss scale {scale:,.0f}" if scale is not None else "")
            + (f", {skipped} skipped" if skipped else "")
        )
        self.restart()

    def epochs(self, state: StageState) -> float:
        """Epochs trained so far."""
        return state.epoch + state.consumed / self._stream.rows

    def restart(self) -> None:
        """Begin anew, as after an evaluation, which is no training time."""
        self._promoters, self._tokens, self._operations, self._waited = 0, 0.0, 0.0, 0.0
        self._began = time.monotonic()
        self._sums.zero_()
