"""Run directory: creation, check before a resume, and the weights of another run that fine-tuning starts from."""

import hashlib
import json
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import yaml

from model.artifacts.json_files import read_run_json
from model.artifacts.manifest import read_manifest
from model.config import STAGES, Config
from model.runs.fingerprint import find_package_version, flatten
from model.runs.read import SUMMARY_KEYS
from model.runs.status import STATUS
from pipeline.config.schema import Dataset
from pipeline.errors import UserError
from pipeline.io.atomic import recover_folder, write_text
from pipeline.io.locks import hold_lock
from pipeline.paths import ROOT
from pipeline.runtime.text import plain_number
from pipeline.shards.index import Index

PACKAGES = ("torch", "deepspeed", "transformers", "duckdb", "pyarrow", "numpy", "scipy", "webdataset", "tokenizers")
"""Packages whose versions are recorded in run.json."""
LENGTH_SETTINGS = ("pretrain.max_epochs", "finetune.max_epochs", "pretrain.early_stop", "finetune.early_stop")
"""Settings that determine when a run ends."""
CHANGEABLE_SETTINGS = (
    "run.checkpoint_minutes", "run.keep_checkpoints", "shards.workers", "dataset.path", "shards.path",
    "shards.cache", "shards.cache_gigabytes", *LENGTH_SETTINGS,
)  # fmt: skip
"""Settings that may change when a run is resumed: they do not affect earlier results. docs/training.md lists them."""
FIXED_DS_SETTINGS = {"ds_config.gradient_clipping": 0.0}
"""Settings of DeepSpeed that may not change, and DeepSpeed's defaults. The others affect speed, memory and rounding."""
OTHER_NAME = "give this run another name (run.name=OTHER)"
"""The fix for a run directory that is in use for something else."""
START_OVER = "remove the folder to start over, which deletes its model and results"
"""The last resort."""
ATOMIC_FILES = (
    "config.yaml", "run.json", STATUS, "metrics.jsonl", "predictions.parquet", "summary.json", "pretrained", "model",
)  # fmt: skip
"""Files and folders that are written under a hidden name and then renamed."""
SPLIT_SETTINGS = (
    "seed", "split", "max_mismatches", "duplicates", "finetune_valid", "finetune_test", "split_column", "train_values",
    "valid_values", "test_values", "valid_from_train", "where", "group_column", "group_overlap",
)  # fmt: skip
"""Settings of a dataset that determine which promoters are held out. finetune_train does not."""


def open_run(config: Config, index: Index, ds_config: dict[str, Any]) -> ExitStack:
    """Create the run directory, or check that an existing one has the same configuration and shards.

    Returns the lock of the directory, which is held until it is closed. Raises UserError if the directory cannot be
    created, is locked, or belongs to a run with other settings, shards or weights.
    """
    folder = config.run.directory
    with lock_run_directory(folder, "run") as lock:
        if (folder / "run.json").exists():
            recorded = _check_same(config, index, ds_config)
            if read_summary(config) is None:
                _record_changes(folder, recorded, config, ds_config)
        else:
            _write_records(config, index, ds_config)
        return lock.pop_all()


@contextmanager
def lock_run_directory(folder: Path, owner: str) -> Iterator[ExitStack]:
    """Create a run directory, lock it, and remove unfinished files. owner: run or baseline, for messages.

    The lock is held until the block ends, or longer if the block takes it over by pop_all. Raises UserError if the
    directory cannot be created or is locked.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{folder}: cannot create the run directory: {error.strerror}; fix: use a writable folder (run.path=...)"
        ) from None
    busy = f"is training in {folder}; fix: wait for it, or give this {owner} another name (run.name=...)"
    with hold_lock(folder / ".lock", busy) as lock:
        remove_leftovers(folder)
        yield lock


def make_owner_keys(config: Config, index: Index) -> dict[str, str]:
    """Make the keys of shards and settings that a checkpoint must have so that this run can resume from it."""
    ignored = {"run.name", "run.path"} | list_changeable_settings(config)
    settings = {name: value for name, value in sorted(flatten(config.model_dump()).items()) if name not in ignored}
    return {"shards": index.key, "settings": hashlib.sha256(json.dumps(settings).encode()).hexdigest()}


def list_changeable_settings(config: Config) -> set[str]:
    """List the settings that may change when a run is resumed; not max_epochs where it determines the learning rate."""
    fixed = {f"{stage}.max_epochs" for stage in STAGES if config.stage(stage).schedule != "plateau"}
    return set(CHANGEABLE_SETTINGS) - fixed


def read_summary(config: Config) -> dict[str, Any] | None:
    """Read the summary of a finished run. Returns None while the run is not finished."""
    path = config.run.directory / "summary.json"
    if not path.exists():
        return None
    return read_run_json(path, SUMMARY_KEYS, "run the same command to compute the scores again")


def has_weights(config: Config) -> bool:
    """Return whether fine-tuning has weights of its own: the run is finished, or has checkpoints to resume from."""
    folder = config.run.directory
    return (folder / "summary.json").exists() or any((folder / "checkpoints" / "finetune").glob("step-*"))


def _hash_pretrained_weights(config: Config) -> str | None:
    """Compute the sha256 of the other run's weights that fine-tuning starts from, if any."""
    other = config.finetune.pretrained_folder
    if other is None or has_weights(config):
        return None
    with (other / "model.safetensors").open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remove_leftovers(folder: Path) -> None:
    """Remove the partial files of killed processes of this run."""
    for name in ATOMIC_FILES:
        recover_folder(folder / name)
        for pattern in (f".*.partial.{name}", f".{name}.*partial"):
            for leftover in folder.glob(pattern):
                shutil.rmtree(leftover, ignore_errors=True)
                leftover.unlink(missing_ok=True)


def _check_same(config: Config, index: Index, ds_config: dict[str, Any]) -> dict[str, Any]:
    """Check that the run was started with these shards, settings and weights. Returns the content of run.json.

    Raises UserError if not, with the settings to resume it. Also raises UserError if the run or one of its stages has
    ended, and the settings determine another end.
    """
    folder = config.run.directory
    next_step = "run the same command to write it again; checkpoints of other settings or shards are still rejected"
    recorded = read_run_json(folder / "run.json", {"shard_key": str, "config": dict, "ds_config": dict}, next_step)
    if "baseline" in recorded:
        raise UserError(f"{folder}: the run directory of a baseline; fix: {OTHER_NAME}, or {START_OVER}")
    now, before = (_list_settings(config, values) for values in (config.model_dump(), recorded["config"]))
    changes = _find_changes(before, now, now.keys() - list_changeable_settings(config))
    if recorded["shard_key"] != index.key:
        others = _describe_shards(recorded, index)
        raise UserError(f"{folder}: this run was started with other shards {_describe(changes, others)}")
    if changes:
        raise UserError(f"{folder}: this run was started with another configuration {_describe(changes)}")
    ds_before, ds_now = (
        {**FIXED_DS_SETTINGS, **flatten(values, "ds_config.")} for values in (recorded["ds_config"], ds_config)
    )
    if changes := _find_changes(ds_before, ds_now, FIXED_DS_SETTINGS):
        raise UserError(f"{folder}: this run was started with another DeepSpeed config {_describe(changes)}")
    weights = recorded.get("pretrained_sha256"), _hash_pretrained_weights(config)
    if None not in weights and weights[0] != weights[1]:
        raise UserError(
            f"{folder}: the weights in {config.finetune.pretrained} have changed since this run was started; fix: "
            f"{OTHER_NAME}, or {START_OVER}"
        )
    summary = read_summary(config)
    if summary is not None and (changes := _find_changes(flatten(summary["config"]), now, LENGTH_SETTINGS)):
        raise UserError(f"{folder}: this run is finished and cannot be trained longer {_describe(changes)}")
    for stage, model in zip(STAGES, ("pretrained", "model"), strict=True):
        manifest = read_manifest(folder / model)
        if manifest is None or manifest.progress is None or not manifest.progress.ended:
            continue
        if changes := _find_changes(before, now, [name for name in LENGTH_SETTINGS if name.startswith(stage)]):
            raise UserError(f"{folder}: stage {stage} has ended and cannot be trained longer {_describe(changes)}")
    return recorded


def _record_changes(folder: Path, recorded: dict[str, Any], config: Config, ds_config: dict[str, Any]) -> None:
    """Record the settings that a resumed run uses, and which of them changed, in config.yaml and run.json."""
    used = {"config": config.model_dump(), "ds_config": ds_config}
    before, now = ({**flatten(x["config"]), **flatten(x["ds_config"], "ds_config.")} for x in (recorded, used))
    changes = {
        name: [before.get(name), now.get(name)] for name in {**before, **now} if before.get(name) != now.get(name)
    }
    if changes:
        resume = {
            "time": datetime.now(UTC).isoformat(timespec="seconds"), "command": sys.argv, "changes": changes,
        }  # fmt: skip
        write_text(folder / "config.yaml", yaml.safe_dump(used["config"], sort_keys=False))
        history = [*recorded.get("history", []), resume]
        write_text(folder / "run.json", json.dumps({**recorded, **used, "history": history}, indent=1) + "\n")


def _list_settings(config: Config, recorded: dict[str, Any]) -> dict[str, Any]:
    """List the settings of a dump by their keys, also those that it omits at their defaults (LATER_SETTINGS)."""
    sections = {name: getattr(config, name) for name in type(config).model_fields}
    defaults = {
        name: {key: type(section).model_fields[key].default for key in section.LATER_SETTINGS}
        for name, section in sections.items()
    }
    return {**flatten(defaults), **flatten(recorded)}


def _find_changes(before: dict[str, Any], now: dict[str, Any], names: Container[str]) -> dict[str, tuple[Any, Any]]:
    """Find the changes of the named settings: name -> (before, now)."""
    return {name: (before.get(name), now[name]) for name in now if name in names and before.get(name) != now[name]}


def _describe_shards(recorded: Mapping[str, Any], index: Index) -> list[str]:
    """Describe by their keys how other shards differ from those of a run, and whether the dataset differs, too."""
    keys = f"shard key: {recorded['shard_key'][:16]} -> {index.key[:16]}"
    return [*(["other rows in the dataset"] if recorded.get("dataset_key") != index.dataset_key else []), keys]


def _describe(changes: dict[str, tuple[Any, Any]], others: Sequence[str] = ()) -> str:
    """Describe changes in parentheses, with the overrides that undo them. Settings of DeepSpeed have a file instead.

    others: changes that no override undoes.
    """
    texts = [f"{name}: {plain_number(before)} -> {plain_number(now)}" for name, (before, now) in changes.items()]
    overrides = " ".join(_undo(name, before) for name, (before, _) in changes.items())
    resume = f", or to resume the existing run, use {overrides}" if changes else ""
    return f"({', '.join([*texts, *others])}); fix: {OTHER_NAME}{resume}; otherwise {START_OVER}"


def _undo(name: str, before: Any) -> str:
    """Write the override that restores a setting."""
    if name in FIXED_DS_SETTINGS:
        return f"{name.removeprefix('ds_config.')} {plain_number(before)} in the DeepSpeed config"
    return f"without {name}" if before is None else shlex.quote(f"{name}={plain_number(before)}")


def _write_records(config: Config, index: Index, ds_config: dict[str, Any]) -> None:
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
        "pretrained_sha256": _hash_pretrained_weights(config),
        **describe_machine(),
    }
    write_text(folder / "run.json", json.dumps(facts, indent=1) + "\n")


def describe_machine() -> dict[str, Any]:
    """Collect what run.json records of software and machine."""
    return {
        "git_commit": _read_git_commit(),
        "python": platform.python_version(),
        "packages": {name: find_package_version(name) for name in PACKAGES},
        "machine": platform.platform(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }


def _read_git_commit() -> str | None:
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=40"]
    with suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    return None


def describe_held_out_difference(folder: Path, config: Config) -> str:
    """Describe how the held-out promoters of another run's model, runs/NAME/pretrained, differ from this run's.

    Returns an empty text if they are the same according to that run's run.json, or if the file is missing.
    """
    try:
        others = json.loads((folder.parent / "run.json").read_text(encoding="utf-8"))["config"]["dataset"]
    except (OSError, ValueError, KeyError, TypeError):  # the model may have been moved, for example
        return ""
    # Older runs do not record a setting that came later: they used its default.
    default = {name: each.get_default(call_default_factory=True) for name, each in Dataset.model_fields.items()}
    pairs = [(name, others.get(name, default[name]), getattr(config.dataset, name)) for name in SPLIT_SETTINGS]
    text = "; ".join(f"dataset.{name} {other}, here {own}" for name, other, own in pairs if other != own)
    name = config.assay.name
    return f"note: {folder} may have been trained on {name}s that are held out here ({text})" if text else ""
