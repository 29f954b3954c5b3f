"""Metrics of a stage between two readings: loss, throughput, FLOP utilization, wait for data.

Sums stay on the device between readings, as each reading waits for the device.
"""

import math
import resource
import sys
import time
from collections.abc import Iterator, Mapping

import torch

from model.bert.flops import StageCost
from model.distributed.process_group import sum_over_ranks
from model.runs.metric_log import Tracker
from model.training.checkpointing.checkpoints import StageState
from model.training.engine import StageEngine, make_divergence_error
from pipeline.config.schema import SEQUENCE_NAME
from pipeline.stream.stream import ShardStream, Step


def measure_peak_memory(device: torch.device) -> int:
    """Measure the peak memory of this process in bytes: allocated on a GPU, or resident on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


class Meter:
    """Meter of a stage that logs its readings.

    stream: the training split; sums: (3,) float64 on the device, loss, count and correct of this rank; line: the last
    reading as text; matmul_rate: operations per second of all devices in matrix products; name: assay.name.
    """

    def __init__(
        self,
        engine: StageEngine,
        stream: ShardStream,
        tracker: Tracker,
        cost: StageCost,
        matmul_rate: float,
        name: str = SEQUENCE_NAME,
    ) -> None:
        self.sums = torch.zeros(3, dtype=torch.float64, device=engine.world.device)
        self.line = ""
        self._engine, self.stream, self._tracker = engine, stream, tracker
        self._cost, self._matmul_rate, self._name = cost, matmul_rate, name
        self.restart()

    def steps(self, epoch: int, consumed: int) -> Iterator[Step]:
        """Iterate over the steps of an epoch after its first `consumed` promoters, and time the wait for each."""
        steps = self.stream.epoch(epoch, consumed)
        while True:
            began = time.monotonic()
            step = next(steps, None)
            self._wait_s += time.monotonic() - began
            if step is None:
                return
            yield step

    def add_step(self, step: Step) -> None:
        """Add the promoters, tokens and operations of a step of all ranks."""
        batch = step.micro_batches[0]
        tokens, operations = self._cost.count(batch.global_lengths)
        self._promoters += batch.global_rows
        self._tokens += tokens
        self._operations += operations

    def read(self, state: StageState, last_step: int) -> None:
        """Log the means since the last reading, and restart. All ranks call this.

        Adds the time since the last reading to state.seconds. last_step: of the stage, for the remaining time. Raises
        UserError if the loss is not finite.
        """
        engine = self._engine
        loss, count, correct = sum_over_ranks(*self.sums)
        if not math.isfinite(loss):
            raise make_divergence_error(engine.stage, f"the loss is {loss} at step {state.step}, not finite")
        seconds = time.monotonic() - self._began
        state.seconds += seconds
        # If the training is faster, the matmul rate was measured while the device was busy.
        self._matmul_rate = max(self._matmul_rate, self._operations / seconds)
        values = self._measure(loss, count, correct, seconds)
        values["seconds_left"] = (last_step - state.step) * state.seconds / state.step
        self.log(state, values)
        self.line = self._describe(values)
        self.restart()

    def glance(self) -> str:
        """Describe the steps of this rank since the last reading, without the other ranks; the last reading if none.

        On a GPU, this would wait for the device: it returns the last reading there.
        """
        if self._promoters and self._engine.world.device.type == "cpu":
            loss, count, correct = self.sums.tolist()
            self.line = self._describe(self._measure(loss, count, correct, time.monotonic() - self._began))
        return self.line

    def _measure(self, loss: float, count: float, correct: float, seconds: float) -> dict[str, float]:
        """Compute the metrics of the steps since the last reading. loss, count, correct: sums over their tokens."""
        engine = self._engine
        values = {"loss": loss / max(count, 1.0)}
        if self._cost.mask_share is not None:
            values["accuracy"] = correct / max(count, 1.0)
        values |= {
            "learning_rate": engine.rate.current,
            "promoters_per_second": self._promoters / seconds,
            "tokens_per_second": self._tokens / seconds,
            "flop_utilisation": min(self._operations / seconds / self._matmul_rate, 1.0),
            "data_wait": self._wait_s / seconds,
            "memory_gigabytes": measure_peak_memory(engine.world.device) / 1e9,
            "skipped_steps": float(engine.skipped_steps),
        }
        if engine.loss_scale is not None:
            values["loss_scale"] = engine.loss_scale
        return values

    def _describe(self, values: Mapping[str, float]) -> str:
        """Format a reading, the most important numbers first; the log has all of them."""
        return ", ".join(
            [
                f"loss {values['loss']:.4f}",
                *([f"loss scale {values['loss_scale']:,.0f}"] if "loss_scale" in values else []),
                *([f"{values['skipped_steps']:,.0f} steps skipped"] if values["skipped_steps"] else []),
                f"lr {values['learning_rate']:.1e}",
                f"{values['promoters_per_second']:,.0f} {self._name}s/s",
                f"FLOP utilization {values['flop_utilisation']:.1%}",
                f"data wait {values['data_wait']:.1%}",
                f"memory {values['memory_gigabytes']:.1f} GB",
            ]
        )

    def log(self, state: StageState, values: dict[str, float]) -> None:
        """Log metrics for the current step of the state."""
        epochs = state.epoch + state.consumed / self.stream.rows
        self._tracker.log(self._engine.stage, state.step, epochs, values)

    def restart(self) -> None:
        """Set all counts to zero, for example after an evaluation, which does not count as training time."""
        self._promoters, self._tokens, self._operations, self._wait_s = 0, 0.0, 0.0, 0.0
        self._began = time.monotonic()
        self.sums.zero_()
