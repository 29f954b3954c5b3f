"""Costs of commands: wall time, CPU seconds and peak memory, each command in a process of its own, in turn."""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.paths import ROOT

COMMAND = str(Path(sys.executable).with_name("promoter-bert"))
STUBS = ROOT / "bench" / "stubs"
"""Stand-ins for packages that mosaicml-streaming imports and does not use here."""
ONE_THREAD = {
    **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"), "1"),
    "TOKENIZERS_PARALLELISM": "false",
}
"""Environment that keeps libraries from starting threads of their own."""
FULL = 6_739_258
"""Rows of the challenge's training file."""

Numbers = Mapping[str, float]


@dataclass(frozen=True)
class Cost:
    """Cost of one run: wall seconds, CPU seconds of all threads and children, peak resident memory in GB."""

    wall: float
    cpu: float
    gigabytes: float


def run(command: Sequence[str]) -> Cost:
    """Run a command and return its cost. Its output is shown only if it fails."""
    return run_command(command)[1]


def module(name: str, *words: str) -> list[str]:
    """Make the command that runs a module of bench."""
    return [sys.executable, "-m", f"bench.{name}", *words]


def run_json(command: Sequence[str], paths: Sequence[Path] = ()) -> dict[str, float]:
    """Run a command that prints a JSON object, with one thread per library, and return the object. paths: see below."""
    output, _ = run_command(command, ONE_THREAD, paths=paths)
    return json.loads(next(line for line in reversed(output.splitlines()) if line.startswith("{")))


def run_command(
    command: Sequence[str],
    variables: Mapping[str, str] | None = None,
    log: Path | None = None,
    paths: Sequence[Path] = (),
) -> tuple[str, Cost]:
    """Run a command and return its output and cost. SystemExit shows the output if it fails.

    variables: added to the environment; log: file for standard error, None: it belongs to the output; paths: added to
    PYTHONPATH, which always holds the checkout, so that modules of bench are found from any folder.
    """
    python_path = [*map(str, (*paths, ROOT)), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, **(variables or {}), "PYTHONPATH": os.pathsep.join(python_path)}
    with nullcontext() if log is None else log.open("wb") as errors:
        began = time.monotonic()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors or subprocess.STDOUT, env=environment)
        assert process.stdout is not None
        output = process.stdout.read().decode(errors="replace")
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)  # or subprocess would wait for it again, in any thread
        wall = time.monotonic() - began
    if status:
        logged = "" if log is None else log.read_text(errors="replace")
        sys.exit(f"{' '.join(command)}: status {status}\n{output[-3000:]}{logged[-3000:]}")
    scale = 1e6 if sys.platform == "linux" else 1e9  # ru_maxrss is in kB on Linux, in bytes elsewhere
    return output, Cost(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / scale)


def medians(contenders: Mapping[str, Callable[[], Numbers]], times: int) -> dict[str, dict[str, float]]:
    """Run all contenders in turn, `times` times. Returns the median of each number of each one."""
    rounds: dict[str, list[Numbers]] = {name: [] for name in contenders}
    for _ in range(times):
        for name, contender in contenders.items():
            rounds[name].append(contender())
    return {
        name: {number: statistics.median(each[number] for each in found) for number in found[0]}
        for name, found in rounds.items()
    }


def cost_of(command: Sequence[str]) -> dict[str, float]:
    """Run a command and return the numbers of its cost."""
    return asdict(run(command))


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Format a Markdown table, with all columns but the first aligned right."""
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
