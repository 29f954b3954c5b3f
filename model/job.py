"""The whole training job: pretrain, fine-tune, predict the held-out promoters, put the results into the dataset."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TextIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import torch
from transformers import BertForSequenceClassification, PreTrainedModel

from model.agreement import agreed_index
from model.bert import masked_language_model, regression_model
from model.checkpoints import StageState
from model.distributed import World, from_leader
from model.engine import DeepSpeedSettings, make_engine, make_optimizer
from model.evaluate import Evaluation, EvaluationData, evaluate
from model.export import broadcast_weights, export_model, master_weights
from model.loop import StageRun, train_stage
from model.runs import long_metrics, open_run, read_summary
from model.seeds import seed_of
from model.tasks import FinetuneTask, PretrainTask
from model.tracking import Tracker
from model.trouble import agreeing
from pipeline.atomic import new_file, write_text
from pipeline.config import Config, Stage
from pipeline.database import dataset_info, reading
from pipeline.errors import UserError
from pipeline.freshness import check_fresh
from pipeline.index import Index
from pipeline.products import publish_run
from pipeline.settings import as_built
from pipeline.shard_access import open_shards
from pipeline.shard_cache import ShardCache
from pipeline.stream import Agree

StageName = Literal["pretrain", "finetune", "both"]


@dataclass(frozen=True)
class Job:
    """One run on this process's rank."""

    config: Config
    settings: DeepSpeedSettings
    world: World
    shards: Path | ShardCache
    index: Index
    agree: Agree
    lock: TextIO | None
    """Held by the leading rank as long as the job lives, so that no other run writes into its directory."""

    @property
    def pretrained(self) -> Path:
        """The best masked language model, a Hugging Face directory."""
        return self.config.run.directory / "pretrained"

    @property
    def model(self) -> Path:
        """The best regression model, a Hugging Face directory."""
        return self.config.run.directory / "model"


def prepare(config: Config, settings: DeepSpeedSettings, world: World) -> Job:
    """Find the shards, check that they are those of the dataset, open the run directory; check that all hosts agree.

    What is wrong is raised on every rank.
    """
    given, problem, lock = config, None, None
    if world.leads:
        try:
            shards, index = open_shards(config)
            with reading(config.dataset.path) as connection:
                info = dataset_info(connection)
            config = as_built(config, info)
            check_fresh(index, config, info)
            _check_splits(index, config)
            lock = open_run(config, index, settings.values)
        except UserError as error:
            problem = str(error)
    problem, config = from_leader((problem, config))
    if problem is not None:
        raise UserError(problem)
    index = agreed_index(given, settings.values)
    shards, _ = open_shards(given)
    return Job(config, settings, world, shards, index, agreeing(world.rank), lock)


def _check_splits(index: Index, config: Config) -> None:
    """Raise UserError where a split is empty that training needs."""
    stages = ("pretrain", "finetune") if config.finetune.start == "pretrained" else ("finetune",)
    empty = [
        f"{stage}/{part}" for stage in stages for part in ("train", "valid") if f"{stage}/{part}" not in index.splits
    ]
    if empty:
        raise UserError(
            f"{config.dataset.path} has no rows in {', '.join(empty)}: no labels, or a size of 0 "
            "(dataset.pretrain_valid, dataset.finetune_valid)"
        )


def run_job(job: Job, stages: StageName = "both") -> dict[str, Any]:
    """Run the stages that are not done yet. Returns the summary; a finished run returns the one it wrote.

    Key `note` of the summary says what the user should know beside the scores.
    """
    summary = from_leader(read_summary(job.config))
    if summary is not None:
        summary["note"] = f"finished on {summary['finished']} already; nothing was trained"
        return _published(job, summary)
    with Tracker(job.config.run.directory, job.world.leads) as tracker:
        wants_pretraining = stages == "pretrain" or job.config.finetune.start == "pretrained"
        if stages in ("pretrain", "both") and wants_pretraining:
            _stage(job, "pretrain", tracker)
        if stages == "pretrain":
            return {"run": job.config.run.name, "pretrained": str(job.pretrained)}
        _stage(job, "finetune", tracker)
    return _finish(job)


def _stage(job: Job, name: Literal["pretrain", "finetune"], tracker: Tracker) -> StageState:
    config, index, world = job.config, job.index, job.world
    torch.manual_seed(seed_of(config.run.seed, name, "weights"))
    task: PretrainTask | FinetuneTask
    model: PreTrainedModel
    stage: Stage
    if name == "pretrain":
        model, stage, best = masked_language_model(config, index), config.pretrain, job.pretrained
        task = PretrainTask(model, index.k, config.pretrain.mask_share)
    else:
        stage, best = config.finetune, job.model
        start = job.pretrained if config.finetune.start == "pretrained" else None
        if start is not None and not from_leader(start.is_dir()):
            raise UserError(f"{start}: no pretrained model; run --stage pretrain first, or set finetune.start=scratch")
        model = regression_model(config, index, start)
        task = FinetuneTask(model, index.k, index.label_mean, index.label_sd, stage.tokens)
    plan = job.settings.plan(stage.global_batch, world.ranks)
    optimizer = make_optimizer(task, stage, decoupled=name == "pretrain")
    engine = make_engine(task, optimizer, job.settings, plan, world)

    def save_best() -> None:
        weights = master_weights(engine, world.leads)
        if weights is not None:
            copy = type(model)(model.config)
            export_model(copy, weights, config, best, index.label_mean, index.label_sd)

    return train_stage(
        StageRun(
            name=name,
            settings=stage,
            run=config.run,
            engine=engine,
            optimizer=optimizer,
            plan=plan,
            world=world,
            data=EvaluationData(job.shards, index, plan.micro_batch, world, config.run.seed, job.agree),
            tracker=tracker,
            checkpoints=config.run.directory / "checkpoints" / name,
            save_best=save_best,
        )
    )


def _finish(job: Job) -> dict[str, Any]:
    """Score the best model on the held-out splits; write predictions and summary, and put them into the dataset."""
    config, world = job.config, job.world
    model = _best_model(job)
    # The exported model speaks the labels' own scale.
    task = FinetuneTask(model, job.index.k, 0.0, 1.0, config.finetune.tokens)
    micro_batch = job.settings.plan(config.finetune.global_batch, world.ranks).micro_batch
    data = EvaluationData(job.shards, job.index, micro_batch, world, config.run.seed, job.agree)
    scored = {
        split: evaluate(task, f"finetune/{split}", data)
        for split in ("valid", "test")
        if f"finetune/{split}" in job.index.splits
    }
    summary = {
        "run": config.run.name,
        "finished": datetime.now(UTC).replace(microsecond=0, tzinfo=None).isoformat(),
        "directory": str(config.run.directory),
        "model": str(job.model),
        "dataset": config.dataset.path,
        "dataset_key": job.index.dataset_key,
        "shard_key": job.index.key,
        "scores": {split: {**e.values, "rows": len(e.predictions.id)} for split, e in scored.items()},
        "config": config.model_dump(),
    }
    if world.leads:
        _write_results(config.run.directory, scored, summary)
    return _published(job, summary)


def _write_results(folder: Path, scored: dict[str, Evaluation], summary: dict[str, Any]) -> None:
    """predictions.parquet, then summary.json, which says that the run is finished."""
    parts = [
        pa.table({"id": e.predictions.id, "split": [split] * len(e.predictions.id),
                  "prediction": e.predictions.prediction.astype(np.float64)})
        for split, e in scored.items()
    ]  # fmt: skip
    with new_file(folder / "predictions.parquet") as temporary:
        pa.parquet.write_table(pa.concat_tables(parts), temporary)
    write_text(folder / "summary.json", json.dumps(summary, indent=1) + "\n")


def _published(job: Job, summary: dict[str, Any]) -> dict[str, Any]:
    """Put a finished run into the dataset. Where that cannot be done now, the summary's note says so."""
    if not job.world.leads:
        return summary
    folder, scores = job.config.run.directory, summary["scores"].get("test", {})
    facts = {
        "finished": datetime.fromisoformat(summary["finished"]),
        "dataset_key": summary["dataset_key"],
        "shard_key": summary["shard_key"],
        "test_pearson": scores.get("pearson"),
        "test_spearman": scores.get("spearman"),
        "config": json.dumps(summary["config"]),
    }
    try:
        publish_run(
            job.config.dataset.path,
            summary["run"],
            facts,
            long_metrics(folder / "metrics.jsonl"),
            pa.parquet.read_table(folder / "predictions.parquet"),
        )
    except UserError as error:
        note = f"the scores stand in {folder}, but not in the dataset yet: {error}; the same command puts them there"
        return {**summary, "note": note}
    return summary


def _best_model(job: Job) -> BertForSequenceClassification:
    """The exported model on every rank; it need only be readable on the leading one."""
    if job.world.leads:
        model = BertForSequenceClassification.from_pretrained(job.model)
    else:
        model = regression_model(job.config, job.index, None)
    model.float().to(job.world.device)
    broadcast_weights(model)
    return model
