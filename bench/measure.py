"""Run commands in turn, each in a process of its own, and report wall time, CPU seconds and peak memory."""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from pipeline.paths import ROOT

COMMAND = str(Path(sys.executable).with_name("promoter-bert"))
STUBS = ROOT / "bench" / "stubs"
ONE_THREAD = {
    **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"), "1"),
    "TOKENIZERS_PARALLELISM": "false",
}
"""Environment that keeps libraries from starting threads of their own."""


@dataclass(frozen=True)
class Cost:
    """One run: seconds on the clock, CPU seconds of all its threads and children, peak resident memory in GB."""

    wall: float
    cpu: float
    gigabytes: float


def module(name: str, *words: str) -> list[str]:
    """Make the command that runs a module of bench."""
    return [sys.executable, "-m", f"bench.{name}", *words]


def run(command: Sequence[str]) -> Cost:
    """Run a command to its end. Its output is shown only where it fails."""
    return ended(command)[1]


def answer(command: Sequence[str], stubs: bool = False) -> dict[str, float]:
    """What a command gives that prints numbers as a JSON object; its libraries start no threads of their own.

    stubs: it finds stand-ins for packages that mosaicml-streaming imports and does not use here.
    """
    said, _ = ended(command, ONE_THREAD, paths=[STUBS] if stubs else [])
    return json.loads(next(line for line in reversed(said.splitlines()) if line.startswith("{")))


def ended(
    command: Sequence[str], variables: Mapping[str, str] | None = None, log: Path | None = None, paths: Sequence[Path] = ()
) -> tuple[str, Cost]:
    """Run a command to its end. Returns its output and cost; SystemExit shows the output if it fails.

    variables: added to the environment; log: file for standard error, None: it belongs to the output; paths: added to
    PYTHONPATH, which holds the checkout, so that modules of bench are found from any folder.
    """
    python_path = [*map(str, (*paths, ROOT)), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, **(variables or {}), "PYTHONPATH": os.pathsep.join(python_path)}
    with nullcontext() if log is None else log.open("wb") as errors:
        began = time.monotonic()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors or subprocess.STDOUT, env=environment)
        assert process.stdout is not None
        said = process.stdout.read().decode(errors="replace")
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)  # or subprocess would wait for it, too, in any thread
        wall = time.monotonic() - began
    if status:
        logged = "" if log is None else log.read_text(errors="replace")
        sys.exit(f"{' '.join(command)}: status {status}\n{said[-3000:]}{logged[-3000:]}")
    scale = 1e6 if sys.platform == "linux" else 1e9  # ru_maxrss is in kB on Linux, in bytes elsewhere
    return said, Cost(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / scale)


def in_turn(forms: Mapping[str, Callable[[], Mapping[str, float]]], times: int) -> dict[str, dict[str, float]]:
    """The median of each number that each form gives, all forms in turn `times` times."""
    found: dict[str, list[Mapping[str, float]]] = {name: [] for name in forms}
    for _ in range(times):
        for name, form in forms.items():
            found[name].append(form())
    return {
        name: {number: statistics.median(each[number] for each in rounds) for number in rounds[0]}
        for name, rounds in found.items()
    }


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table, all columns but the first to the right."""
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


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
