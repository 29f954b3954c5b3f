"""Run directory: its creation, the check of a resumed run, and the weights of another run it starts from."""

import hashlib
import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Container
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import torch
import yaml

from model.artifacts.json_files import read_run_json
from model.config import Config
from model.runs.fingerprint import flat, package_version
from model.runs.read import SUMMARY
from model.runs.status import STATUS
from pipeline.errors import UserError
from pipeline.io.atomic import recover_folder, write_text
from pipeline.io.locks import hold_lock
from pipeline.paths import ROOT
from pipeline.shards.index import Index

PACKAGES = ("torch", "deepspeed", "transformers", "duckdb", "pyarrow", "numpy", "scipy", "webdataset", "tokenizers")
"""Packages whose versions are recorded in run.json."""
LIMITS = ("pretrain.max_epochs", "finetune.max_epochs", "pretrain.early_stop", "finetune.early_stop")
"""Settings that decide when a run ends."""
MAY_CHANGE = (
    "run.checkpoint_minutes", "run.keep_checkpoints", "shards.workers", "dataset.path", "shards.path",
    "shards.cache", "shards.cache_gigabytes", *LIMITS,
)  # fmt: skip
"""Settings that a resumed run may change: none affects what was computed so far."""
WRITTEN = (
    "config.yaml", "run.json", STATUS, "metrics.jsonl", "predictions.parquet", "summary.json", "pretrained", "model",
)  # fmt: skip
"""Files and folders that are written under a temporary name first."""
HELD_OUT_BY = ("seed", "split", "max_mismatches", "duplicates", "finetune_valid", "finetune_test")
"""Settings of a dataset that decide which promoters are held out; finetune_train does not."""


def open_run(config: Config, index: Index, ds_config: dict[str, Any]) -> ExitStack:
    """Create the run directory, or check that the existing one has the same configuration and shards.

    Returns the directory's lock, which is held until it is closed.
    """
    folder = config.run.directory
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{folder}: cannot create the run directory: {error.strerror}; fix: choose a writable folder (run.path=...)"
        ) from None
    busy = f"is training in {folder}; fix: wait for it, or give this run another name (run.name=...)"
    with hold_lock(folder / ".lock", busy) as lock:
        _remove_leftovers(folder)
        if (folder / "run.json").exists():
            _check_same(config, index)
        else:
            _record(config, index, ds_config)
        return lock.pop_all()


def owner_keys(config: Config, index: Index) -> dict[str, str]:
    """Return the keys of shards and settings that a checkpoint must have to be resumed from."""
    ignored = ("run.name", "run.path", *MAY_CHANGE)
    settings = {name: value for name, value in sorted(flat(config.model_dump()).items()) if name not in ignored}
    return {"shards": index.key, "settings": hashlib.sha256(json.dumps(settings).encode()).hexdigest()}


def read_summary(config: Config) -> dict[str, Any] | None:
    """Read the summary of a finished run; None while it is not finished."""
    path = config.run.directory / "summary.json"
    return read_run_json(path, SUMMARY, "run the same command to compute the scores again") if path.exists() else None


def has_weights(config: Config) -> bool:
    """Return whether fine-tuning has its own weights already: it is finished, or has checkpoints to resume from."""
    folder = config.run.directory
    return (folder / "summary.json").exists() or any((folder / "checkpoints" / "finetune").glob("step-*"))


def _starts_from(config: Config) -> str | None:
    """Return the sha256 of the other run's weights that fine-tuning starts from, if any."""
    other = config.finetune.pretrained_folder
    if other is None or has_weights(config):
        return None
    with (other / "model.safetensors").open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _remove_leftovers(folder: Path) -> None:
    """Remove the partial files that killed processes of this run have left."""
    for name in WRITTEN:
        recover_folder(folder / name)
        for pattern in (f".*.partial.{name}", f".{name}.*partial"):
            for leftover in folder.glob(pattern):
                shutil.rmtree(leftover, ignore_errors=True)
                leftover.unlink(missing_ok=True)


def _check_same(config: Config, index: Index) -> None:
    """Raise UserError if the run has other shards or settings, or is finished and the new settings train longer."""
    folder = config.run.directory
    next_step = "run the same command to write it again; checkpoints of other settings or shards are still rejected"
    recorded = read_run_json(folder / "run.json", {"shard_key": str, "config": dict}, next_step)
    fix = "fix: give this run another name (run.name=...), or remove the folder to start over"
    if recorded["shard_key"] != index.key:
        keys = f"expected key {recorded['shard_key'][:16]}, got {index.key[:16]}"
        raise UserError(f"{folder}: was started with other shards; {keys}; {fix}")
    now = flat(config.model_dump())
    if changes := _changes(flat(recorded["config"]), now, now.keys() - MAY_CHANGE):
        raise UserError(f"{folder}: was started with another configuration ({changes}); {fix}")
    weights = recorded.get("pretrained_sha256"), _starts_from(config)
    if None not in weights and weights[0] != weights[1]:
        raise UserError(f"{folder}: was started from other weights than {config.finetune.pretrained} holds; {fix}")
    summary = read_summary(config)
    if summary is not None and (changes := _changes(flat(summary["config"]), now, LIMITS)):
        raise UserError(f"{folder}: is finished and cannot be trained longer ({changes}); {fix}")


def _changes(before: dict[str, Any], now: dict[str, Any], names: Container[str]) -> str:
    """List which of the named settings changed; empty if none."""
    changed = [name for name in now if name in names and before.get(name) != now[name]]
    return ", ".join(f"{name}: {before.get(name)} -> {now[name]}" for name in changed)


def _record(config: Config, index: Index, ds_config: dict[str, Any]) -> None:
    """Write config.yaml, then run.json: command, configuration, keys, versions, hardware."""
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


def _git_commit() -> str | None:
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=40"]
    with suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    return None


def held_out_otherwise(folder: Path, config: Config) -> str:
    """Return a note if the run of folder runs/NAME/pretrained held out other promoters than this one.

    Returns an empty text if its run.json says that they are the same, or if there is none beside the model.
    """
    try:
        theirs = json.loads((folder.parent / "run.json").read_text(encoding="utf-8"))["config"]["dataset"]
    except (OSError, ValueError, KeyError, TypeError):  # for example because the model was moved
        return ""
    pairs = [(name, theirs.get(name), getattr(config.dataset, name)) for name in HELD_OUT_BY]
    listed = "; ".join(f"dataset.{name} {other}, here {own}" for name, other, own in pairs if other != own)
    return f"note: {folder} may have been trained on promoters that are held out here ({listed})" if listed else ""
