"""Timing of training steps: promoters per second with their range, host waits, and a profile."""

import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import torch

PARTS = 3
"""Number of parts of the timed steps; the range is that of their rates."""

TakeStep = Callable[[], int]
"""Takes a step, and returns its number of promoters."""


@dataclass(frozen=True)
class StepPlan:
    """Number of steps. warm_up: untimed ones that fill caches and compile; steps: timed ones, in three parts."""

    warm_up: int
    steps: int

    @property
    def part(self) -> int:
        """Return the number of steps per part."""
        return max(self.steps // PARTS, 1)

    @property
    def total(self) -> int:
        """Return the number of all steps."""
        return self.warm_up + PARTS * self.part


@dataclass(frozen=True)
class Rates:
    """Promoters per second: median, slowest and fastest part."""

    median: float
    slowest: float
    fastest: float

    @classmethod
    def of(cls, parts: list[float]) -> "Rates":
        """Summarize the rates of the parts."""
        return cls(statistics.median(parts), min(parts), max(parts))


def time_steps(
    step: TakeStep, plan: StepPlan, device: torch.device, on_start: Callable[[], None] = lambda: None
) -> Rates:
    """Time steps, with synchronization at the ends of the parts only. on_start: called as the clock starts."""
    for _ in range(plan.warm_up):
        step()
    rates = []
    for number in range(PARTS):
        synchronize(device)
        if number == 0:
            on_start()
        start, promoters = time.perf_counter(), 0
        for _ in range(plan.part):
            promoters += step()
        synchronize(device)
        rates.append(promoters / (time.perf_counter() - start))
    return Rates.of(rates)


def synchronize(device: torch.device) -> None:
    """Wait for all work on a device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def count_host_waits(step: TakeStep, device: torch.device) -> int | None:
    """Count how often the host waits for the GPU in a step, as far as torch reports it; None on a CPU."""
    if device.type != "cuda":
        return None
    waits = 0

    def count(*_: object) -> None:
        nonlocal waits
        waits += 1

    # torch warns of waiting operations, but not of torch.cuda.synchronize.
    with warnings.catch_warnings(record=True) as messages, patch.object(torch.cuda, "synchronize", count):
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return waits + sum("synchronizing" in str(warning.message) for warning in messages)


def profile_steps(step: TakeStep, trace: Path | None) -> None:
    """Profile three steps: write a trace for chrome://tracing, and beside it a table of the longest operations (.txt).

    trace: file to write, .json; None on ranks that only take the steps.
    """
    if trace is None:
        for _ in range(3):
            step()
        return
    with torch.profiler.profile() as profiler:
        for _ in range(3):
            step()
    profiler.export_chrome_trace(str(trace))
    order = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
    trace.with_suffix(".txt").write_text(profiler.key_averages().table(sort_by=order, row_limit=40), encoding="utf-8")
