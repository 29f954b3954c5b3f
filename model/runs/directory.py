"""The run directory: what was asked for, with what, and what came out."""

import hashlib
import json
import platform
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
import yaml

from model.artifacts.json_files import read_written
from model.config import Config
from model.runs.fingerprint import flat, package_version
from model.runs.metric_log import PLACE, read_metrics
from model.runs.other_run import weights_hash
from model.runs.read import SUMMARY
from pipeline.errors import UserError
from pipeline.io.atomic import recover_folder, write_text
from pipeline.io.locks import hold_lock
from pipeline.paths import ROOT
from pipeline.shards.index import Index

PACKAGES = (
    "torch",
    "deepspeed",
    "transformers",
    "duckdb",
    "pyarrow",
    "numpy",
    "scipy",
    "webdataset",
    "tokenizers",
)
LIMITS = ("pretrain.max_epochs", "finetune.max_epochs", "pretrain.early_stop", "finetune.early_stop")
"""When a run ends."""
MAY_CHANGE = (
    "run.checkpoint_minutes", "run.keep_checkpoints", "shards.workers", "dataset.path", "shards.path",
    "shards.cache", "shards.cache_gigabytes", *LIMITS,
)  # fmt: skip
"""What a run that goes on may state anew: none of it changes what was done so far."""
WRITTEN = ("config.yaml", "run.json", "metrics.jsonl", "predictions.parquet", "summary.json", "pretrained", "model")
"""What a run writes first under another name."""


def open_run(config: Config, index: Index, ds_config: dict[str, Any]) -> ExitStack:
    """Make the run directory, or check that the one there is of the same configuration and shards.

    Returns the directory's lock, held until it is closed.
    """
    folder = config.run.directory
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{folder}: the run's folder cannot be made: {error.strerror}; expected a place to write to (run.path=...)"
        ) from None
    busy = f"is training in {folder}: wait for it, or give this run another name (run.name=...)"
    lock = hold_lock(folder / ".lock", busy)
    try:
        _tidy(folder)
        if (folder / "run.json").exists():
            _check_same(config, index)
        else:
            _record(config, index, ds_config)
    except BaseException:
        lock.close()
        raise
    return lock


def owner_keys(config: Config, index: Index) -> dict[str, str]:
    """What a checkpoint belongs to: it can be gone on from where these are the same."""
    free = ("run.name", "run.path", *MAY_CHANGE)
    settings = {name: value for name, value in sorted(flat(config.model_dump()).items()) if name not in free}
    return {"shards": index.key, "settings": hashlib.sha256(json.dumps(settings).encode()).hexdigest()}


def read_summary(config: Config) -> dict[str, Any] | None:
    """What a finished run wrote at its end; None while it is not finished."""
    path = config.run.directory / "summary.json"
    if not path.exists():
        return None
    return read_written(path, SUMMARY, "and the same command computes the scores again")


def has_weights(config: Config) -> bool:
    """Whether fine-tuning has weights of its own already: checkpoints to go on from, or it is finished."""
    folder = config.run.directory
    return (folder / "summary.json").exists() or any((folder / "checkpoints" / "finetune").glob("step-*"))


def _starts_from(config: Config) -> str | None:
    """The sha256 of the weights of another run that fine-tuning is to start from."""
    other = config.finetune.other_pretraining
    return None if other is None or has_weights(config) else weights_hash(other)


def _tidy(folder: Path) -> None:
    """Remove what killed starts of this run have left half written."""
    for name in WRITTEN:
        recover_folder(folder / name)
        for pattern in (f".*.partial.{name}", f".{name}.*partial"):
            for leftover in folder.glob(pattern):
                shutil.rmtree(leftover, ignore_errors=True)
                leftover.unlink(missing_ok=True)


def _check_same(config: Config, index: Index) -> None:
    """Raise UserError where a run of this name has other shards or settings, or has ended and is asked for more."""
    folder = config.run.directory
    again = "and the same command writes it again; checkpoints of other settings or shards will still be refused"
    earlier = read_written(folder / "run.json", {"shard_key": str, "config": dict}, again)
    way_out = "give this run another name (run.name=...), or remove the folder to start anew"
    if earlier["shard_key"] != index.key:
        keys = f"key {earlier['shard_key'][:16]}, now {index.key[:16]}"
        raise UserError(f"{folder} was started with other shards ({keys}): {way_out}")
    before, now = flat(earlier["config"]), flat(config.model_dump())
    changed = [name for name in now if before.get(name) != now[name] and name not in MAY_CHANGE]
    if changed:
        raise UserError(f"{folder} was started with another configuration ({_said(changed, before, now)}): {way_out}")
    weights = earlier.get("pretrained_sha256"), _starts_from(config)
    if None not in weights and weights[0] != weights[1]:
        raise UserError(f"{folder} was started from other weights than {config.finetune.pretrained} holds: {way_out}")
    summary = read_summary(config)
    ended = flat(summary["config"]) if summary is not None else now
    changed = [name for name in LIMITS if ended.get(name) != now[name]]
    if changed:
        raise UserError(f"{folder} is finished and does not go on any longer ({_said(changed, ended, now)}): {way_out}")


def _said(names: list[str], before: dict[str, Any], now: dict[str, Any]) -> str:
    return ", ".join(f"{name}: {before.get(name)} -> {now[name]}" for name in names)


def _record(config: Config, index: Index, ds_config: dict[str, Any]) -> None:
    """Write what was asked for and with what it runs; run.json comes last."""
    folder = config.run.directory
    write_text(folder / "config.yaml", yaml.safe_dump(config.model_dump(), sort_keys=False))
    facts = {
        "command": sys.argv,
        "started_in": str(Path.cwd()),
        "config": config.model_dump(),
        "ds_config": ds_config,
        "dataset_key": index.dataset_key,
        "shard_key": index.key,
        "pretrained_sha256": _starts_from(config),
        "git_commit": _git_commit(),
        "python": platform.python_version(),
        "packages": {name: package_version(name) for name in PACKAGES},
        "machine": platform.platform(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }
    write_text(folder / "run.json", json.dumps(facts, indent=1) + "\n")


def long_metrics(path: Path) -> list[dict[str, Any]]:
    """metrics.jsonl with one row a number: stage, step, epoch, metric, value."""
    return [
        {**{name: line[name] for name in PLACE}, "metric": name, "value": float(value)}
        for line in read_metrics(path)
        for name, value in line.items()
        if name not in PLACE
    ]


def _git_commit() -> str | None:
    try:
        out = subprocess.run(
            ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=40"],
            capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return out.stdout.strip()
