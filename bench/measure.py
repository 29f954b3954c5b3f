"""Run commands in turn, each in a process of its own, and report wall time, CPU seconds and peak memory."""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """One run: seconds on the clock, CPU seconds of all its threads and children, peak resident memory in GB."""

    wall: float
    cpu: float
    gigabytes: float


def run(command: Sequence[str]) -> Cost:
    """Run a command to its end. Its output is shown only where it fails."""
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert process.stdout is not None
    said = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.monotonic() - began
    if status:
        sys.exit(f"{' '.join(command)}: status {status}\n{said.decode()[-3000:]}")
    scale = 1e6 if sys.platform == "linux" else 1e9  # ru_maxrss is in kB on Linux, in bytes elsewhere
    return Cost(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / scale)


def compare(
    commands: Mapping[str, Sequence[str]], times: int, clean: Callable[[], None] = lambda: None
) -> dict[str, Cost]:
    """The median costs of each command, run in turn `times` times. clean is called before each run."""
    costs: dict[str, list[Cost]] = {name: [] for name in commands}
    for _ in range(times):
        for name, command in commands.items():
            clean()
            costs[name].append(run(command))
    fields = ("wall", "cpu", "gigabytes")
    return {
        name: Cost(*(statistics.median(getattr(cost, field) for cost in found) for field in fields))
        for name, found in costs.items()
    }


def table(costs: Mapping[str, Cost], ours: str) -> str:
    """A Markdown table, with each CPU time as a ratio to ours."""
    lines = ["| | wall s | CPU s | peak GB | CPU, ours = 1 |", "|---|--:|--:|--:|--:|"]
    base = costs[ours].cpu
    lines += [
        f"| {name} | {cost.wall:.1f} | {cost.cpu:.1f} | {cost.gigabytes:.2f} | {cost.cpu / base:.2f} |"
        for name, cost in costs.items()
    ]
    return "\n".join(lines)
