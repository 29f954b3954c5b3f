"""The whole training job: pretrain, fine-tune, predict the held-out promoters, put the results into the dataset."""

import json
import shlex
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import torch
from transformers import BertForSequenceClassification

from model.artifacts.manifest import Layout, Standing
from model.bert.build import bert_config, check_pretrained, load_regression_model, regression_model
from model.bert.flops import matmul_rate, stage_cost
from model.bert.objectives import FinetuneTask
from model.bert.rng import seed_of
from model.bert.stage_task import stage_task
from model.config import Config, StageName, Stages
from model.distributed.agreement import agreed_index
from model.distributed.process_group import World, broadcast, run_on_rank0, sums_over_ranks
from model.distributed.stop_signals import StopRequest, stop_requests
from model.distributed.trouble import agreeing
from model.runs.directory import has_weights, long_metrics, open_run, owner_keys, read_summary
from model.runs.metric_log import Tracker
from model.runs.other_run import held_out_otherwise
from model.runs.publish import publish_run
from model.scoring.bootstrap import correlation_intervals
from model.training.best_model import BestModel
from model.training.checkpoints import HUGGING_FACE, Checkpoints
from model.training.engine import DeepSpeedSettings, make_engine, make_optimizer
from model.training.evaluate import Evaluation, EvaluationData, evaluate
from model.training.hf_export import broadcast_weights, export_model, frozen_weights, master_weights
from model.training.loop import StageRun, train_stage
from model.training.mlm_baselines import baselines
from model.training.model_card import write_card
from model.training.throughput import Speed
from pipeline.dataset.built_settings import as_built
from pipeline.dataset.database import dataset_info, reading
from pipeline.errors import UserError
from pipeline.io.atomic import new_file, write_text
from pipeline.runtime.progress import tell
from pipeline.shards.index import Index
from pipeline.shards.location import find_index, whole_index
from pipeline.shards.staleness import as_written, check_fresh
from pipeline.stream.cache import ShardCache
from pipeline.stream.sources import shard_source
from pipeline.stream.stream import ErrorConsensus


@dataclass(frozen=True)
class Job:
    """One run on this process's rank."""

    config: Config
    settings: DeepSpeedSettings
    world: World
    shards: Path | ShardCache
    index: Index
    agree: ErrorConsensus
    lock: ExitStack | None
    """Held by rank 0 as long as the job lives, so that no other run writes into its directory."""

    @property
    def pretrained(self) -> BestModel:
        """The best masked language model."""
        return self._best("pretrain", "pretrained")

    @property
    def model(self) -> BestModel:
        """The best regression model."""
        return self._best("finetune", "model")

    def _best(self, stage: StageName, folder: str) -> BestModel:
        run = self.config.run.directory
        return BestModel(stage, run / folder, run / "checkpoints" / stage, owner_keys(self.config, self.index))


def prepare(config: Config, settings: DeepSpeedSettings, world: World, stages: Stages = "both") -> Job:
    """Find the shards, check that they are those of the dataset, open the run directory; check that all hosts agree.

    What is wrong is raised on every rank.
    """
    if stages == "pretrain" and config.finetune.other_pretraining is not None:
        raise UserError(
            "--stage pretrain: this run would not use what it pretrains, as it starts from "
            f"finetune.pretrained={config.finetune.pretrained}; leave one of them out"
        )
    index: Index | None = None
    lock: ExitStack | None = None

    def opened() -> Config:
        nonlocal index, lock
        index = find_index(config)
        shard_source(config, index)  # whether it can be read, before the run directory is made
        with reading(config.dataset.path) as connection:
            info = dataset_info(connection)
        built = as_written(as_built(config, info), index)
        check_fresh(index, built, info)
        _check_splits(index, built)
        other = built.finetune.other_pretraining
        if other is not None and not has_weights(built):
            check_pretrained(other, bert_config(built, index))
            note = held_out_otherwise(other, built)
            if note:
                tell(note)
        lock = open_run(built, index, settings.values)
        return built

    built = run_on_rank0(world, opened)
    index = agreed_index(config, settings.values, index or whole_index(config))
    return Job(built, settings, world, shard_source(config, index), index, agreeing(world.rank), lock)


def _check_splits(index: Index, config: Config) -> None:
    """Raise UserError where a split is empty that training needs."""
    stages = ("pretrain", "finetune") if config.finetune.wants_pretraining else ("finetune",)
    empty = [
        f"{stage}/{part}" for stage in stages for part in ("train", "valid") if f"{stage}/{part}" not in index.splits
    ]
    if empty:
        raise UserError(
            f"{config.dataset.path} has no rows in {', '.join(empty)}: no labels, or a size of 0 "
            "(dataset.pretrain_valid, dataset.finetune_valid, dataset.finetune_train)"
        )


def run_job(job: Job, stages: Stages = "both") -> dict[str, Any]:
    """Run the stages that are not done yet. Returns the summary; a finished run returns the one it wrote.

    Key `note` of the summary says what the user should know beside the scores; a run that was asked to stop has
    `stopped` instead of scores, where it stands and how to go on.
    """
    summary = run_on_rank0(job.world, lambda: read_summary(job.config))
    if summary is not None:
        run_on_rank0(job.world, lambda: _see_to_models(job, stages))
        summary["note"] = f"finished on {summary['finished']} already; nothing was trained"
        return _published(job, summary)
    if job.world.device.type == "cuda" and job.config.model.tf32:
        torch.set_float32_matmul_precision("high")
    peak = sums_over_ranks(
        torch.tensor(matmul_rate(job.world.device, job.settings.precision), device=job.world.device)
    )[0]
    states: dict[str, Standing] = {}
    with stop_requests(job.world) as stop, Tracker(job.config.run.directory, job.world.is_rank0) as tracker:
        for name in job.config.stages(stages):
            states[name] = _stage(job, name, tracker, stop, peak)
            if not states[name].ended:
                return {"stopped": f"{name} after step {states[name].step:,}; the same command goes on from there"}
        masked = _masked_scores(job, states["pretrain"], stop) if "pretrain" in states else {}
        if masked is None:
            return {"stopped": "before the scores; the same command computes them"}
        if stages == "pretrain":
            return {
                "run": job.config.run.name,
                "pretrained": str(job.pretrained.folder),
                "training": _trained(states),
                "masked": masked,
            }
        return _finish(job, stop, _trained(states), masked)


def _see_to_models(job: Job, stages: Stages) -> None:
    """Make a finished run's damaged models again. Raises UserError where that of the last stage asked for is lost."""
    asked, other = (job.pretrained, job.model) if stages == "pretrain" else (job.model, job.pretrained)
    outdated = job.config.run.directory / "summary.json"
    asked.require(tell, outdated)
    if job.config.finetune.wants_pretraining:
        try:
            other.require(tell, outdated)
        except UserError as error:
            tell(str(error))


def _trained(states: dict[str, Standing]) -> dict[str, dict[str, float | None]]:
    """What the summary says of each stage."""
    return {
        name: {"steps": s.step, "best": s.best, "best_step": s.best_step, "seconds": round(s.seconds, 3)}
        for name, s in states.items()
    }


def _masked_scores(job: Job, standing: Standing, stop: StopRequest) -> dict[str, Any] | None:
    """The best pretrained model's numbers on pretrain/valid, and two guesses without a model; None where stopped."""
    micro_batch = job.settings.plan(job.config.pretrain.global_batch, job.world.ranks).micro_batch
    data = EvaluationData(job.shards, job.index, micro_batch, job.world, job.config.run.seed, job.agree)
    pretrain = job.config.pretrain
    guesses = baselines(data, pretrain.mask_share, stop.agreed, pretrain.masked == "insert")
    if guesses is None:
        return None
    return {**standing.best_values, "rows": job.index.rows("pretrain/valid"), "baselines": guesses}


def _stage(job: Job, name: StageName, tracker: Tracker, stop: StopRequest, peak: float) -> Standing:
    """Run a stage from where it stands. peak: operations a second of all devices in plain matrix products."""
    config, index, world = job.config, job.index, job.world
    best = job.pretrained if name == "pretrain" else job.model
    ended = run_on_rank0(world, best.ended)
    if ended is not None:
        if world.is_rank0:
            tell(f"{name}: has ended before, at step {ended.step:,}; the best model is in {best.folder}")
        return ended
    torch.manual_seed(seed_of(config.run.seed, name, "weights"))
    stage = config.stage(name)
    layout = Layout(world.ranks, job.settings.zero_stage, job.settings.precision)
    checkpoints = Checkpoints(best.checkpoints, best.owner, layout, config.run.keep_checkpoints, world)
    found = checkpoints.find(lambda line: tell(f"{name}: {line}"))
    start = None
    if name == "finetune" and config.finetune.wants_pretraining:
        start = job.pretrained.folder
        run_on_rank0(world, lambda: job.pretrained.require(lambda line: tell(f"{name}: {line}")))
    elif name == "finetune":
        # A run that goes on takes its own: the other run's folder may be gone, or hold other weights by now, and the
        # frozen ones must stay those that the rest was trained with.
        start = config.finetune.other_pretraining if found is None else best.checkpoints / found.tag / HUGGING_FACE
    model, task = stage_task(config, index, name, start)
    kept = frozen_weights(model)
    plan = job.settings.plan(stage.global_batch, world.ranks)
    optimizer = make_optimizer(task, stage, decoupled=name == "pretrain")
    engine = make_engine(task, optimizer, job.settings, plan, world, found is not None and found.universal)
    if config.model.compile:
        if world.is_rank0:
            tell(f"{name}: compiling the training step (model.compile=true); the first steps take minutes on a CPU")
        engine.compile()

    def export(folder: Path) -> None:
        weights, problem = master_weights(engine, world.is_rank0), None
        if weights is not None:
            copy = type(model)(model.config)
            try:
                export_model(copy, kept | weights, config, folder, index.label_mean, index.label_sd)
            except OSError as error:
                problem = str(error)
        problem = broadcast(problem)
        if problem is not None:
            raise OSError(problem)

    state = train_stage(
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
            checkpoints=checkpoints,
            found=found,
            best=best,
            export=export,
            speed=Speed(stage_cost(config, index, name), peak),
            stop=stop,
        )
    )
    return state.standing


def _finish(job: Job, stop: StopRequest, training: dict[str, Any], masked: dict[str, Any]) -> dict[str, Any]:
    """Score the best model on the held-out splits; write predictions and summary, and put them into the dataset."""
    config, world = job.config, job.world
    model = _best_model(job)
    # The exported model speaks the labels' own scale.
    task = FinetuneTask(model, job.index.k, 0.0, 1.0, config.finetune.tokens)
    micro_batch = job.settings.plan(config.finetune.global_batch, world.ranks).micro_batch
    data = EvaluationData(job.shards, job.index, micro_batch, world, config.run.seed, job.agree)
    scored = {}
    for split in ("valid", "test"):
        if f"finetune/{split}" in job.index.splits:
            found = evaluate(task, f"finetune/{split}", data, stop.agreed)
            if found is None:
                return {"stopped": "before the scores; the same command computes them"}
            scored[split] = found
    summary = {
        "run": config.run.name,
        "finished": datetime.now(UTC).replace(microsecond=0, tzinfo=None).isoformat(),
        "directory": str(config.run.directory),
        "model": str(job.model.folder),
        "dataset": config.dataset.path,
        "dataset_key": job.index.dataset_key,
        "shard_key": job.index.key,
        "training": training,
        "masked": masked,
        "scores": {split: _scores(e, job.index, world.is_rank0) for split, e in scored.items()},
        "units": {
            "loss": "squared error of standardised labels",
            "label_mean": job.index.label_mean,
            "label_sd": job.index.label_sd,
        },
        "config": config.model_dump(),
    }
    if world.is_rank0:
        write_card(job.model.folder, summary, job.index)
        _write_results(config.run.directory, scored, summary)
    return _published(job, summary)


def _scores(scored: Evaluation, index: Index, is_rank0: bool) -> dict[str, Any]:
    """What the summary says of a held-out split. The intervals take seconds: only rank 0 computes them.

    The loss is the squared error of standardised labels, whatever the loss trained on was; the exported model's is on
    the labels' scale.
    """
    found, loss = scored.predictions, scored.values["loss"] / (index.label_sd**2 or 1.0)
    scores: dict[str, Any] = {**scored.values, "loss": loss, "rows": len(found.id)}
    if is_rank0:
        intervals = correlation_intervals(found.prediction, found.expression)
        scores["intervals"] = {name: list(ends) for name, ends in intervals.items()}  # as summary.json has them
    return scores


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
    if not job.world.is_rank0:
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
    predictions = _read_predictions(folder)
    try:
        publish_run(
            job.config.dataset.path,
            summary["run"],
            facts,
            long_metrics(folder / "metrics.jsonl"),
            predictions,
        )
    except UserError as error:
        note = f"the scores stand in {folder}, but not in the dataset yet: {error}; the same command puts them there"
        return {**summary, "note": note}
    return summary


def _read_predictions(folder: Path) -> pa.Table:
    """Raises UserError where they are damaged or gone."""
    path, summary = folder / "predictions.parquet", shlex.quote(str(folder / "summary.json"))
    try:
        return pa.parquet.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise UserError(
            f"{path}: the predictions cannot be read ({str(error).splitlines()[0]}); to have them computed again: "
            f"rm {summary}, then the same command"
        ) from None


def _best_model(job: Job) -> BertForSequenceClassification:
    """The exported model on every rank; it need only be readable on the leading one."""
    if job.world.is_rank0:
        model = load_regression_model(job.model.folder)
    else:
        model = regression_model(job.config, job.index, None)
    model.float().to(job.world.device)
    broadcast_weights(model)
    return model
