"""Timing training steps: promoters a second, with their spread, and where the host waits for the device."""

import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import torch

PARTS = 3
"""Parts of the timed steps that the spread is taken over."""

TakeStep = Callable[[], int]
"""Takes a step, and gives the promoters in it."""


@dataclass(frozen=True)
class Plan:
    """Steps before the clock starts, in which caches fill and what is compiled is compiled for its second shape; and
    steps that are timed, a third of them in each part."""

    warm_up: int
    steps: int

    @property
    def part(self) -> int:
        """Steps of a part."""
        return max(self.steps // PARTS, 1)

    @property
    def total(self) -> int:
        """All steps."""
        return self.warm_up + PARTS * self.part


@dataclass(frozen=True)
class Rates:
    """Promoters a second: the median of the parts, and the slowest and the fastest of them."""

    middle: float
    slowest: float
    fastest: float

    @classmethod
    def of(cls, parts: list[float]) -> "Rates":
        """parts: the rate in each."""
        return cls(statistics.median(parts), min(parts), max(parts))


def timed(step: TakeStep, plan: Plan, device: torch.device, at_start: Callable[[], None] = lambda: None) -> Rates:
    """Take the steps. The device is waited for at the ends of the parts only. at_start: called as the clock starts."""
    for _ in range(plan.warm_up):
        step()
    rates = []
    for number in range(PARTS):
        wait(device)
        if number == 0:
            at_start()
        began, promoters = time.perf_counter(), 0
        for _ in range(plan.part):
            promoters += step()
        wait(device)
        rates.append(promoters / (time.perf_counter() - began))
    return Rates.of(rates)


def wait(device: torch.device) -> None:
    """For all that was given to the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def host_waits(step: TakeStep, device: torch.device) -> int | None:
    """How often the host waits for the GPU in a step, as far as torch says so; None on a CPU."""
    if device.type != "cuda":
        return None
    whole = 0

    def counted(*_: object) -> None:
        nonlocal whole
        whole += 1

    # torch warns of the operations that wait, but not of a wait for the whole device.
    with warnings.catch_warnings(record=True) as caught, patch.object(torch.cuda, "synchronize", counted):
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return whole + sum("synchronizing" in str(warning.message) for warning in caught)


def profile(step: TakeStep, trace: Path | None) -> None:
    """Take three steps; write them for chrome://tracing, and a table of the longest operations beside that.

    trace: None on the ranks that only take the steps.
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
