"""Train a baseline on the dataset and splits of a configuration, and write it as a run directory."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

from model.baselines.cnn import (
    LEARNING_RATE,
    WARM_UP,
    CnnSettings,
    choose_settings,
    fit_shards,
)
from model.baselines.cnn_optimizer import WEIGHT_DECAY
from model.baselines.fit import BaselineFit, HeldOutRows, OnProgress
from model.baselines.ridge import ALPHAS, LONGEST
from model.baselines.ridge_fit import fit_dataset
from model.baselines.run_directory import BaselineRecord, open_baseline
from model.config import Config
from model.runs.results import (
    publish_results,
    score_held_out,
    standardized_error,
    tabulate_predictions,
    write_results,
)
from model.runs.status import STATUS, RunStatus
from model.scoring.metrics import regression_scores, scores_of_labels
from pipeline.dataset.built_settings import as_built
from pipeline.dataset.database import DatasetInfo, dataset_info, open_dataset
from pipeline.errors import UserError
from pipeline.io.atomic import write_text
from pipeline.runtime.text import format_count
from pipeline.shards.index import Index
from pipeline.shards.location import find_index
from pipeline.shards.staleness import adopt_compression, check_fresh
from pipeline.stream.sources import choose_source

Method = Literal["ridge", "cnn"]


def train_baseline(
    config: Config,
    method: Method,
    learning_rate: float = LEARNING_RATE,
    epochs: int | None = None,
    emit: Callable[[str], None] = lambda _: None,
    on_progress: OnProgress = lambda _done, _total, _note: None,
) -> dict[str, Any]:
    """Train a baseline and write its run directory, run.path/run.name-METHOD. Returns the content of summary.json.

    A finished baseline is not trained again; an interrupted one starts again. learning_rate: of the CNN, the highest
    one; epochs: None for the number that suits the rows. emit: called with one line before the training; on_progress:
    called during it. Raises UserError for a dataset or shards that are missing or do not fit, and for a run directory
    with other settings.
    """
    with open_dataset(config.dataset.path, build_command=config.build_command) as connection:
        info = dataset_info(connection)
    config = as_built(config, info)
    empty = [f"finetune/{split}" for split in ("train", "valid") if not info.split_rows[f"finetune/{split}"]]
    if empty:
        raise UserError(
            f"{config.dataset.path}: the dataset has no rows in {', '.join(empty)}; fix: build it from rows with "
            "labels, with dataset.finetune_valid and dataset.finetune_train above 0"
        )
    if method == "ridge":
        record = _record_ridge(config, info)
        fit = partial(fit_dataset, Path(config.dataset.path), on_progress)
    else:
        index = find_index(config)
        config = adopt_compression(config, index)
        check_fresh(index, config, info)
        own = config.finetune
        decay = own.weight_decay if own.optimizer == "muon" else WEIGHT_DECAY
        shared = own.random_n, own.reverse_complement, own.optimizer, decay
        settings = choose_settings(info.finetune_train_rows, config.run.seed, learning_rate, epochs, *shared)
        record = _record_cnn(config, info, index, settings)
        fit = partial(fit_shards, choose_source(config, index), index, settings, on_progress)
    return _run(record, config, info, fit, emit)


def _run(
    record: BaselineRecord,
    config: Config,
    info: DatasetInfo,
    fit: Callable[[], BaselineFit],
    emit: Callable[[str], None],
) -> dict[str, Any]:
    """Fit a baseline unless it is finished, write its results, and publish them into the dataset."""
    folder = Path(record.config["run"]["path"]) / record.config["run"]["name"]
    lock, summary = open_baseline(folder, record)
    with lock:
        if summary is not None:
            note = f"already finished on {summary['finished']}; nothing was trained"
            return publish_results(folder, config.dataset.path, {**summary, "note": note})
        with RunStatus(folder / STATUS):
            emit(_describe(record, info))
            result = fit()
            summary = _summarize(folder, record, config, info, result)
            write_text(folder / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in result.log))
            tables = [
                tabulate_predictions(split, rows.id, rows.prediction, info.several_labels)
                for split, rows in result.held_out.items()
            ]
            write_results(folder, tables, summary)
            return publish_results(folder, config.dataset.path, summary)


def _record_ridge(config: Config, info: DatasetInfo) -> BaselineRecord:
    baseline = {"method": "ridge", "longest_kmer": LONGEST, "alphas": list(ALPHAS)}
    return BaselineRecord(_record_config(config, "ridge"), info.key, "", baseline)


def _record_cnn(config: Config, info: DatasetInfo, index: Index, settings: CnnSettings) -> BaselineRecord:
    values = _record_config(config, "cnn")
    values["run"]["seed"] = settings.seed
    values["shards"] = {"path": config.shards.path, "k": config.shards.k}
    values["finetune"] = {
        "global_batch": settings.batch,
        "learning_rate": settings.learning_rate,
        "schedule": "onecycle",
        "weight_decay": settings.weight_decay,
        "max_epochs": settings.epochs,
        "loss": "mse",
        **({"random_n": settings.random_n} if settings.random_n else {}),
        **({"reverse_complement": True} if settings.reverse_complement else {}),
        **({"optimizer": settings.optimizer} if settings.optimizer != "adam" else {}),
    }
    baseline = {"method": "cnn", "size": settings.size, "warm_up": WARM_UP}
    return BaselineRecord(values, info.key, index.key, baseline)


def _record_config(config: Config, method: Method) -> dict[str, dict[str, Any]]:
    """Select the settings that apply to a baseline. Ridge regression reads inserts without flanks."""
    return {
        "run": {"name": f"{config.run.name}-{method}", "path": config.run.path},
        "assay": config.assay.model_dump(exclude=set() if method == "cnn" else {"flank"}),
        "dataset": config.dataset.model_dump(),
    }


def _describe(record: BaselineRecord, info: DatasetInfo) -> str:
    """Say what is trained, and which settings were chosen by the number of rows."""
    rows = f"{info.finetune_train_rows:,} training rows"
    if record.baseline["method"] == "ridge":
        return f"ridge: {rows}, counts of all 1- to {LONGEST}-mers, the best of {len(ALPHAS)} regularization strengths"
    finetune = record.config["finetune"]
    shared = {name: finetune[name] for name in ("random_n", "reverse_complement", "optimizer") if name in finetune}
    chosen = choose_settings(info.finetune_train_rows, 0, **shared).epochs == finetune["max_epochs"]
    return (
        f"cnn: {rows}; {'chosen for this number: ' * chosen}size {record.baseline['size']}, batch "
        f"{finetune['global_batch']}, {format_count(finetune['max_epochs'], 'epoch')}"
        + "".join(f"; finetune.{name}={str(value).lower()}" for name, value in shared.items())
    )


def _summarize(
    folder: Path, record: BaselineRecord, config: Config, info: DatasetInfo, fit: BaselineFit
) -> dict[str, Any]:
    """Make the content of summary.json, with the keys of a training except its model."""
    labels = info.several_labels
    return {
        "run": record.config["run"]["name"],
        "finished": datetime.now(UTC).replace(microsecond=0, tzinfo=None).isoformat(),
        "directory": str(folder),
        "dataset": config.dataset.path,
        "dataset_key": record.dataset_key,
        "shard_key": record.shard_key,
        "training": fit.training,
        "masked": {},
        "scores": {split: _score(rows, labels, fit.label_sd) for split, rows in fit.held_out.items()},
        "units": {
            "loss": "squared error of standardised labels",
            **({"labels": labels} if labels else {}),
            "label_mean": fit.label_mean,
            "label_sd": fit.label_sd,
        },
        "baseline": {**record.baseline, **fit.chosen},
        "config": record.config,
    }


def _score(rows: HeldOutRows, labels: list[str], label_sd: float | list[float]) -> dict[str, Any]:
    values = rows.prediction, rows.expression
    return {
        "loss": standardized_error(*values, label_sd),
        **(scores_of_labels(*values, labels) if labels else regression_scores(*values)),
        "rows": len(rows.id),
        **score_held_out(*values, labels),
    }
