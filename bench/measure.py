"""Costs of commands: wall time, CPU time and peak memory. Each command runs alone, in its own process."""

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
"""Stubs of packages that mosaicml-streaming imports but does not use here."""
ONE_THREAD = {
    **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"), "1"),
    "TOKENIZERS_PARALLELISM": "false",
}
"""Environment variables that limit libraries to one thread."""
FULL = 6_739_258
"""Rows of train_sequences.txt of the DREAM Challenge."""

Numbers = Mapping[str, float]


@dataclass(frozen=True)
class Cost:
    """Cost of a command: wall time in s, CPU time of all threads and children in s, peak resident memory in GB."""

    wall: float
    cpu: float
    gigabytes: float


def run(command: Sequence[str]) -> Cost:
    """Run a command and return its cost. Its output is shown only if it fails."""
    return run_command(command)[1]


def module(name: str, *arguments: str) -> list[str]:
    """Return the command that runs a module of bench with arguments."""
    return [sys.executable, "-m", f"bench.{name}", *arguments]


def run_json(command: Sequence[str], paths: Sequence[Path] = ()) -> dict[str, float]:
    """Run a command that prints a JSON object, with one thread per library, and return it. paths: see run_command."""
    output, _ = run_command(command, ONE_THREAD, paths=paths)
    return dict(json.loads(next(line for line in reversed(output.splitlines()) if line.startswith("{"))))


def run_command(
    command: Sequence[str],
    variables: Mapping[str, str] | None = None,
    log: Path | None = None,
    paths: Sequence[Path] = (),
) -> tuple[str, Cost]:
    """Run a command and return its output and cost. Raises SystemExit with the output if it fails.

    variables: added to the environment. log: file for standard error; None adds it to the output. paths: added to
    PYTHONPATH, which always contains the project folder, so that bench can be imported in any folder.
    """
    python_path = [*map(str, (*paths, ROOT)), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, **(variables or {}), "PYTHONPATH": os.pathsep.join(python_path)}
    with nullcontext() if log is None else log.open("wb") as errors:
        start = time.monotonic()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors or subprocess.STDOUT, env=environment)
        assert process.stdout is not None
        output = process.stdout.read().decode(errors="replace")
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)  # otherwise subprocess waits for it a second time
        wall = time.monotonic() - start
    if status:
        errors_text = "" if log is None else log.read_text(errors="replace")
        sys.exit(f"{' '.join(command)}: status {status}\n{output[-3000:]}{errors_text[-3000:]}")
    scale = 1e6 if sys.platform == "linux" else 1e9  # ru_maxrss is in kB on Linux, in bytes elsewhere
    return output, Cost(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / scale)


def medians(contenders: Mapping[str, Callable[[], Numbers]], times: int) -> dict[str, dict[str, float]]:
    """Run all contenders in turn, `times` times, and return the median of each number of each contender."""
    rounds: dict[str, list[Numbers]] = {name: [] for name in contenders}
    for _ in range(times):
        for name, contender in contenders.items():
            rounds[name].append(contender())
    return {
        name: {number: statistics.median(each[number] for each in results) for number in results[0]}
        for name, results in rounds.items()
    }


def cost_of(command: Sequence[str]) -> dict[str, float]:
    """Run a command and return its cost by name."""
    return asdict(run(command))


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Format a Markdown table, with all columns but the first aligned right."""
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
