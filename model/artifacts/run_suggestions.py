"""Errors for a path without a model or a run: what the path is, and which run to use instead."""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pipeline.errors import UserError
from pipeline.paths import find_similar, looked_in

Kind = Literal["model", "pretrained"]
"""Model folders of a run directory."""
RUNS = Path("runs")
"""Folder whose runs are listed if there are none near a wrong path: the default of run.path."""
MOST_LISTED = 10
"""Runs in an error."""
RANK_OPTION = "--local_rank"
"""Begin of the argument that DeepSpeed's launcher adds to a command."""


def no_model_error(folder: Path, expected: str, kind: Kind = "model") -> UserError:
    """Make the error of a path that holds no model. expected: the kind of folder to name."""
    if folder.is_file():
        return _file_error(folder, expected, kind)
    run = folder.parent if folder.name == kind else folder
    facts = _read_facts(run)
    if "baseline" in facts:
        fix = _suggest_model(run, facts, kind)
        return UserError(f"{run}: a baseline has no model, only predictions of held-out rows; {fix}")
    problem = f"{folder}: no model here{looked_in(folder)}; {expected}"
    if (run / kind / "config.json").is_file():
        return UserError(f"{problem}; fix: use {run / kind}")
    if facts:
        return UserError(f"{problem}; fix: run its training to the end: {_write_training(facts)}")
    train = f"deepspeed train.py run.name={shlex.quote(run.name)}, with the --config of its data"
    return UserError(f"{problem}{suggest_runs(run, kind) or f'; fix: train it first: {train}'}")


def no_run_error(path: Path, expected: str) -> UserError:
    """Make the error of a path that is no run directory. expected: the kind of folder to name."""
    if path.is_file():
        return _file_error(path, expected)
    problem = "holds no run.json" if path.is_dir() else f"no such folder{looked_in(path)}"
    return UserError(f"{path}: {problem}; {expected}{suggest_runs(path)}")


def suggest_runs(path: Path, kind: Kind | None = None) -> str:
    """Suggest the run of a similar name, or list the runs, for an error; an empty text if there are none.

    Runs in the path itself come first, then those beside it, then those of RUNS. kind: the model that they must have;
    None: any run.
    """
    what = f" with a {'pretrained ' * (kind == 'pretrained')}model" if kind else ""
    for folder in (path, path.parent, RUNS):
        runs = _list_runs(folder, kind)
        if near := find_similar(path.name, [run.name for run in runs]) if folder != path else "":
            return f"; did you mean {folder / near}?"
        if runs:
            more = f" and {len(runs) - MOST_LISTED:,} more" if len(runs) > MOST_LISTED else ""
            return f"; runs{what}: {', '.join(map(str, runs[:MOST_LISTED]))}{more}"
    return ""


def format_command(arguments: Sequence[str]) -> str:
    """Write the recorded command of a run as it can be typed, without the launcher of train.py."""
    program, *others = (word for word in arguments if not word.startswith(RANK_OPTION))
    name = Path(program).name
    return shlex.join([name if name == "promoter-bert" else program, *others])


def _list_runs(folder: Path, kind: Kind | None) -> list[Path]:
    """List the run directories in a folder by name; with a kind, those that have this model."""
    pattern = f"*/{kind}/config.json" if kind else "*/run.json"
    return sorted({folder / found.relative_to(folder).parts[0] for found in folder.glob(pattern)})


def _find_home(file: Path) -> Path | None:
    """Find the run directory in which a file lies, or the model folder; None if it lies in neither."""
    markers = ("run.json", "model.safetensors")
    return next((each for each in list(file.parents)[:2] if any((each / name).exists() for name in markers)), None)


def _file_error(file: Path, expected: str, kind: Kind | None = None) -> UserError:
    """Make the error of a file in the place of a run. kind: the model that the run must have; None: any run."""
    home = _find_home(file)
    if home is None:
        return UserError(f"{file}: a file, not a run directory; {expected}{suggest_runs(RUNS, kind)}")
    if kind and "baseline" in _read_facts(home):
        return no_model_error(home, expected, kind)
    return UserError(f"{file}: a file, not a run directory; fix: use {home}")


def _suggest_model(baseline: Path, facts: dict[str, Any], kind: Kind) -> str:
    """Name the run with a model beside a baseline: that of its configuration, another one, or the training's command.

    The name of a baseline is that of the run and of its method.
    """
    try:
        own = baseline.resolve().name.removesuffix(f"-{facts['baseline']['method']}")
        words = list(facts["command"])[3:]  # promoter-bert baseline METHOD
    except (KeyError, TypeError):
        own, words = baseline.name, []
    if (baseline.parent / own / kind / "config.json").is_file():
        return f"fix: use the run of its configuration, {baseline.parent / own}"
    settings = [word for before, word in zip(["", *words], words, strict=False) if "--config" in (before, word)]
    return suggest_runs(baseline.parent / own, kind).removeprefix("; ") or (
        f"fix: train the model of its configuration: {shlex.join(['python', 'train.py', *settings])}"
    )


def _write_training(facts: dict[str, Any]) -> str:
    """Write the command of a training with its launcher: python for one process without a GPU."""
    launched = any(word.startswith(RANK_OPTION) for word in facts["command"]) or facts.get("gpus")
    return f"{'deepspeed' if launched else 'python'} {format_command(facts['command'])}"


def _read_facts(run: Path) -> dict[str, Any]:
    """Read the command and the baseline of run.json; empty if there is none, or it is corrupt."""
    try:
        facts = json.loads((run / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    is_command = isinstance(facts, dict) and isinstance(facts.get("command"), list)
    return facts if is_command and all(isinstance(word, str) for word in facts["command"]) else {}
