"""Run directory of a baseline: the same files as those of a training, except checkpoints and model."""

import json
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from model.artifacts.json_files import read_run_json
from model.runs.directory import OTHER_NAME, START_OVER, describe_machine, lock_run_directory
from model.runs.fingerprint import flatten
from model.runs.read import RUN_KEYS, SUMMARY_KEYS
from pipeline.errors import UserError
from pipeline.io.atomic import write_text

IGNORED_SETTINGS = ("run.path", "dataset.path", "shards.path")
"""Settings that may differ in a rerun: the files may have been moved."""

KEYS = {"dataset_key": "key of the dataset's rows", "shard_key": "key of the shards"}
"""Keys that a rerun must have in common with the first run."""


@dataclass(frozen=True)
class BaselineRecord:
    """Settings and data that determine a baseline, as run.json records them.

    config: the sections and settings that apply to it; baseline: method and its fixed choices; shard_key: empty for a
    baseline that reads the dataset only.
    """

    config: dict[str, dict[str, Any]]
    dataset_key: str
    shard_key: str
    baseline: dict[str, Any]


def open_baseline(folder: Path, record: BaselineRecord) -> tuple[ExitStack, dict[str, Any] | None]:
    """Create the run directory of a baseline, or check that an existing one has the same record.

    Returns the lock of the directory, and the summary if the baseline is finished. Raises UserError if the directory
    cannot be written, is locked, or belongs to a training or another baseline.
    """
    with lock_run_directory(folder, "baseline") as lock:
        summary = None
        if (folder / "run.json").exists():
            _check_same(folder, record)
            if (folder / "summary.json").exists():
                summary = read_run_json(folder / "summary.json", SUMMARY_KEYS, "run the same command again")
        else:
            _write_record(folder, record)
        return lock.pop_all(), summary


def _check_same(folder: Path, record: BaselineRecord) -> None:
    """Raise UserError if the directory belongs to a training, or to a baseline with another record."""
    fix = f"fix: {OTHER_NAME}, or {START_OVER}"
    recorded = read_run_json(folder / "run.json", RUN_KEYS, "run the same command again")
    if "baseline" not in recorded:
        raise UserError(f"{folder}: the run directory of a training; {fix}")
    before, now = _settings(recorded["config"], recorded), _settings(record.config, vars(record))
    changes = [
        f"{name}: {before.get(name)} -> {now.get(name)}"
        for name in {**before, **now}
        if before.get(name) != now.get(name)
    ]
    if changes:
        raise UserError(
            f"{folder}: this baseline was started with other settings or rows ({', '.join(changes)}); {fix}"
        )


def _settings(config: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    values = {name: value for name, value in flatten(config).items() if name not in IGNORED_SETTINGS}
    keys = {text: facts[name][:16] for name, text in KEYS.items()}
    return {**values, **flatten(facts["baseline"], "baseline."), **keys}


def _write_record(folder: Path, record: BaselineRecord) -> None:
    """Write config.yaml, then run.json. Results of an older run.json do not count."""
    (folder / "summary.json").unlink(missing_ok=True)
    write_text(folder / "config.yaml", yaml.safe_dump(record.config, sort_keys=False))
    facts = {
        "command": sys.argv,
        "started_in": str(Path.cwd()),
        "config": record.config,
        "ds_config": {},
        "dataset_key": record.dataset_key,
        "shard_key": record.shard_key,
        "baseline": record.baseline,
        **describe_machine(),
    }
    write_text(folder / "run.json", json.dumps(facts, indent=1) + "\n")
