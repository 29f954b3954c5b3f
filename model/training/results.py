"""Results of a training run: score the best model, write predictions and summary, publish them into the dataset."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch.distributed as dist

from model.artifacts.manifest import StageProgress
from model.bert.build import build_regression_model, load_regression_model
from model.bert.objectives import FinetuneTask
from model.config import StageName, Stages
from model.distributed.process_group import run_on_rank0
from model.distributed.stop_signals import StopRequest
from model.prediction.example import compute_example
from model.runs.directory import read_summary
from model.runs.results import (
    publish_results,
    score_held_out,
    standardized_error,
    tabulate_predictions,
    write_results,
)
from model.training.evaluate import Evaluation, StopRequestError, evaluate
from model.training.mlm_baselines import score_baselines
from model.training.model_card import write_card
from model.training.prepare import TrainingRun
from pipeline.dataset.database import open_dataset_of_key
from pipeline.dataset.splits.split_leaks import recorded_leaks
from pipeline.errors import UserError
from pipeline.reporting.text import leaks_text
from pipeline.runtime.progress import emit
from pipeline.shards.index import Index

Summary = dict[str, Any]
"""Result of train. `note`: further information for the user; `stopped`: position in the run after a stop request,
instead of scores."""


def read_finished_results(run: TrainingRun, stages: Stages) -> Summary | None:
    """Read the summary of a finished run, and publish it again. All ranks call this.

    Returns None if the run is not finished. Corrupt models are restored. Raises UserError if the model of the last
    stage of `stages` is lost.
    """
    summary = run_on_rank0(run.world, lambda: read_summary(run.config))
    if summary is None:
        return None
    run_on_rank0(run.world, lambda: _restore_models(run, stages))
    return _publish(run, {**summary, "note": f"already finished on {summary['finished']}; nothing was trained"})


def compute_results(
    run: TrainingRun, stages: Stages, progress: dict[StageName, StageProgress], stop: StopRequest
) -> Summary:
    """Score the models of the trained stages. After fine-tuning, finish the run and publish it. All ranks call this.

    progress: of each trained stage. Raises UserError if a model cannot be read or the disk is full.
    """
    results: Summary = {
        "training": {
            name: {"steps": p.step, "best": p.best, "best_step": p.best_step, "seconds": round(p.seconds, 3)}
            for name, p in progress.items()
        },
        "masked": {},
    }
    try:
        if "pretrain" in progress:
            plan = run.settings.plan(run.config.pretrain.global_batch, run.world.ranks)
            baselines = score_baselines(run, run.config.pretrain, plan.micro_batch, stop.is_requested)
            rows = run.index.rows("pretrain/valid")
            results["masked"] = {**progress["pretrain"].best_values, "rows": rows, "baselines": baselines}
        if stages == "pretrain":
            return {"run": run.config.run.name, "pretrained": str(run.best_model("pretrain").folder), **results}
        evaluations = _evaluate_held_out(run, stop)
    except StopRequestError:
        return {"stopped": "before the scores were computed; run the same command to compute them"}
    summary = _summarize(run, results, evaluations)
    if run.world.is_rank0:
        model = run.best_model("finetune").folder
        write_card(model, summary, run.index, compute_example(model), _describe_leaks(run))
        _write(run, evaluations, summary)
    return _publish(run, summary)


def _restore_models(run: TrainingRun, stages: Stages) -> None:
    """Restore corrupt models of a finished run. Raises UserError if the model of the last stage is lost."""
    pretrained, model = run.best_model("pretrain"), run.best_model("finetune")
    required, other = (pretrained, model) if stages == "pretrain" else (model, pretrained)
    stale = run.config.run.directory / "summary.json"
    required.ensure_intact(emit, stale)
    if run.config.finetune.uses_own_pretraining:
        try:
            other.ensure_intact(emit, stale)
        except UserError as error:
            emit(str(error))


def _evaluate_held_out(run: TrainingRun, stop: StopRequest) -> dict[str, Evaluation]:
    """Evaluate the best model on the held-out splits."""
    if run.world.is_rank0:
        model = load_regression_model(run.best_model("finetune").folder)
    else:  # other ranks may not have access to the directory
        model = build_regression_model(run.config, run.index, None)
    model.float().to(run.world.device)
    for tensor in model.state_dict().values():
        dist.broadcast(tensor, src=0)
    # The exported model predicts on the scale of the labels, so no scaling is needed here.
    task = FinetuneTask(model, run.index.k, 0.0, 1.0, run.config.finetune.tokens)
    plan = run.settings.plan(run.config.finetune.global_batch, run.world.ranks)
    return {
        split: evaluate(task, f"finetune/{split}", run, plan.micro_batch, stop.is_requested)
        for split in ("valid", "test")
        if f"finetune/{split}" in run.index.splits
    }


def _summarize(run: TrainingRun, results: Summary, evaluations: dict[str, Evaluation]) -> Summary:
    """Make the content of summary.json.

    Its loss is the squared error of standardized labels, also for trainings with another loss. The evaluation's loss is
    on the scale of the labels. Only rank 0 computes the intervals, which takes seconds.
    """
    config, index = run.config, run.index
    scores: Summary = {}
    for split, evaluation in evaluations.items():
        loss = _standardize_loss(evaluation, index)
        scores[split] = {**evaluation.values, "loss": loss, "rows": len(evaluation.id)}
        if run.world.is_rank0:
            scores[split] |= score_held_out(evaluation.prediction, evaluation.expression, index.labels)
    return {
        "run": config.run.name,
        "finished": datetime.now(UTC).replace(microsecond=0, tzinfo=None).isoformat(),
        "directory": str(config.run.directory),
        "model": str(run.best_model("finetune").folder),
        "dataset": config.dataset.path,
        "dataset_key": index.dataset_key,
        "shard_key": index.key,
        **results,
        "scores": scores,
        "units": {
            "loss": "squared error of standardised labels",
            **({"labels": index.labels} if index.labels else {}),
            "label_mean": index.label_mean,
            "label_sd": index.label_sd,
        },
        "config": config.model_dump(),
    }


def _standardize_loss(evaluation: Evaluation, index: Index) -> float:
    """Compute the mean squared error of standardized labels from an evaluation on the scale of the labels."""
    if not isinstance(index.label_sd, list):
        return evaluation.values["loss"] / (index.label_sd**2 or 1.0)
    return standardized_error(evaluation.prediction, evaluation.expression, index.label_sd)


def _describe_leaks(run: TrainingRun) -> str:
    """Describe the recorded leaks of the run's dataset for the model card; empty if it was replaced or removed."""
    try:
        with open_dataset_of_key([Path(run.config.dataset.path)], run.index.dataset_key) as connection:
            return leaks_text(recorded_leaks(connection)) if connection else ""
    except UserError:
        return ""


def _write(run: TrainingRun, evaluations: dict[str, Evaluation], summary: Summary) -> None:
    parts = [
        tabulate_predictions(split, each.id, each.prediction, run.index.labels) for split, each in evaluations.items()
    ]
    write_results(run.config.run.directory, parts, summary)


def _publish(run: TrainingRun, summary: Summary) -> Summary:
    """Publish a finished run into the dataset, on rank 0. If that fails, the summary's note has the reason.

    Raises UserError if the predictions cannot be read.
    """
    if not run.world.is_rank0:
        return summary
    return publish_results(run.config.run.directory, run.config.dataset.path, summary)
