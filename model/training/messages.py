"""Messages that describe a run before its training, and its results afterwards."""

import math
import os
from typing import Any

import numpy as np
import torch

from model.bert.build import ARCHITECTURES, count_parameters, make_bert_config
from model.bert.flops import TRAINED, make_stage_cost
from model.config import StageName, Stages
from model.distributed.process_group import World
from model.runs.read import BASELINES, sequence_name, warn_below_baseline, warn_of_scale
from model.training.loop import VALIDATION_METRIC
from model.training.prepare import TrainingRun
from model.training.small_batch import FIX, describe_small_batch
from pipeline.runtime.text import format_count, format_duration
from pipeline.shards.index import Index

CPU_UTILIZATION = 0.4
"""FLOP utilization on a CPU, for the estimate: 0.2 measured with the demo's model, 0.5 with the paper's."""
LONG_S = 2 * 3600
"""Duration of a training on a CPU from which its start warns."""
BUSY = 2
"""Load average per core from which other programs slow down a training with several threads.

Measured on two cores: with load 9, a step took 600 ms with one thread and 1,060 ms with two; idle, 180 and 115 ms.
"""
USUAL_INSERT = 80
"""Usual length of an insert in bases, for the estimated cost."""


def describe_run(run: TrainingRun, stages: Stages = "both") -> str:
    """Describe data, model, batches and cost of the stages to run, one line each."""
    index, world, config, settings = run.index, run.world, run.config, run.settings
    size, is_composed = make_bert_config(config, index), config.model.kmer_embedding == "composed"
    model = ARCHITECTURES[size.model_type].name
    pretrains = stages == "pretrain" or config.finetune.uses_own_pretraining
    used = [split for split in index.splits if pretrains or not split.startswith("pretrain/")]
    lines = [
        f"run        {config.run.directory}",
        f"data       {run.shards}: " + ", ".join(f"{split} {index.rows(split):,}" for split in used),
        f"model      {model}, {format_count(size.num_hidden_layers, 'layer')}, hidden {size.hidden_size}, "
        f"{size.vocab_size} tokens{' composed from their bases' if is_composed else ''}, "
        f"{count_parameters(size, is_composed):,} parameters",
        f"devices    {world.ranks} x {world.device.type}{_describe_threads(world)}, {settings.precision}, "
        f"ZeRO {settings.zero_stage}",
    ]
    if world.device.type == "cpu" and hasattr(os, "getloadavg"):
        lines += describe_load(torch.get_num_threads(), os.cpu_count() or 1, os.getloadavg()[0])
    for name in config.stages(stages):
        stage = config.stage(name)
        plan = settings.plan(stage.global_batch, world.ranks)
        per_promoter = _count_per_promoter(run, name)
        in_stage = per_promoter * index.rows(f"{name}/train") * stage.max_epochs
        lines.append(
            f"{name:10} {stage.global_batch} {config.assay.name}s per step = {format_count(world.ranks, 'rank')} x "
            f"{format_count(plan.micro_batches, 'micro-batch', 'micro-batches')} of at most {plan.micro_batch}; "
            f"{per_promoter:.1e} FLOP per {config.assay.name}, {in_stage:.1e} in {stage.max_epochs:g} "
            f"epoch{'' if stage.max_epochs == 1 else 's'}"
        )
    lines.append(f"gradients  {_describe_clipping(run, stages)}")
    small = [describe_small_batch(config, name, world.ranks) for name in config.stages(stages)]
    if world.device.type == "cuda" and any(small):
        lines.append(f"note       {'; '.join(filter(None, small))}; fix: {FIX}")
    if settings.note:
        lines.append(f"note       {settings.note}")
    if "finetune" in config.stages(stages):
        lines += [
            f"warning    all training labels{of_label} are {mean:g}: there is nothing to learn from them"
            for of_label, mean in find_constant_labels(index).items()
        ]
    return "\n".join(lines)


def _describe_threads(world: World) -> str:
    """Describe the threads of a process on a CPU; an empty text for a GPU."""
    return "" if world.device.type != "cpu" else f" with {format_count(torch.get_num_threads(), 'thread')}"


def describe_load(threads: int, cores: int, load: float) -> list[str]:
    """Note that other programs use the cores of a training whose threads wait for each other; empty otherwise."""
    if threads == 1 or load < BUSY * cores:
        return []
    return [f"note       other programs use the {cores} cores (load {load:.0f}); fix: set OMP_NUM_THREADS=1"]


def _describe_clipping(run: TrainingRun, stages: Stages) -> str:
    """Describe the clipping of gradients, by stage if the stages differ."""
    texts = {}
    for name in run.config.stages(stages):
        norm = run.settings.clip(run.config.stage(name).gradient_clipping).values.get("gradient_clipping", 0.0)
        texts[name] = f"clipped at norm {norm:g}" if norm else "not clipped"
    first, *others = texts.values()
    return first if all(text == first for text in others) else ", ".join(" ".join(each) for each in texts.items())


def describe_rate(measured: float, nominal: float | None) -> str:
    """Describe the matmul rate of one device, in operations per second. nominal: by its maker; None: not known."""
    beside = f", {measured / nominal:.0%} of the nominal {nominal / 1e12:,.0f}" if nominal else ""
    return f"matmul     {measured / 1e12:,.3g} TFLOP/s per device, measured on random values{beside}"


def warn_long_training(run: TrainingRun, stages: Stages, matmul_rate: float) -> str:
    """Warn of a training that takes hours on a CPU, with what to do; an empty text otherwise.

    matmul_rate: of all devices, in operations per second. The estimate is right within a factor of two. It has all
    epochs, with their validations: one forward pass, a third of a training step.
    """
    if run.world.device.type != "cpu":
        return ""
    operations = 0.0
    for name in run.config.stages(stages):
        stage = run.config.stage(name)
        train, valid = (run.index.rows(f"{name}/{split}") for split in ("train", "valid"))
        operations += (
            _count_per_promoter(run, name) * stage.max_epochs * (train + valid / TRAINED / stage.evaluate_every)
        )
    seconds = operations / (CPU_UTILIZATION * matmul_rate)
    if seconds < LONG_S:
        return ""
    return (
        f"warning    this training takes about {format_duration(seconds)} on this CPU in total, less if it stops;\n"
        "           fix: a GPU, a small model (--config configs/small.yaml), or fewer rows (dataset.finetune_train)"
    )


def _count_per_promoter(run: TrainingRun, name: StageName) -> float:
    """Count the operations of a training step per promoter of the usual length."""
    length = len(run.index.left_flank) + len(run.index.right_flank) + USUAL_INSERT
    return make_stage_cost(run.config, run.index, name).count(np.array([length]))[1]


def find_constant_labels(index: Index) -> dict[str, float]:
    """Find labels that are all equal in fine-tuning's train split: ` of NAME` (empty for one label) -> their value.

    Without labels, the deviation in the index is 1.
    """
    means, sds = (value if isinstance(value, list) else [value] for value in (index.label_mean, index.label_sd))
    names = [f" of {name}" for name in index.labels] or [""]
    return {name: mean for name, mean, sd in zip(names, means, sds, strict=True) if sd == 0}


def describe_summary(summary: dict[str, Any]) -> str:
    """Describe the scores of the held-out splits, and the paths of the results."""
    if "stopped" in summary:
        return f"stopped    {summary['stopped']}"
    lines = [
        f"{name:10} best {VALIDATION_METRIC[name]} {stage['best']:.4f} at step {stage['best_step']:,} of "
        f"{stage['steps']:,}, trained for {stage['seconds']:,.0f} s{_suggest_epochs(summary, name)}"
        for name, stage in summary.get("training", {}).items()
    ]
    if summary.get("masked"):
        lines += _describe_masked_scores(summary["masked"])
    labels = summary.get("units", {}).get("labels", [])
    for split, score in summary.get("scores", {}).items():
        correlations = ", ".join(
            f"{name.capitalize()} {_format_score(score, name)}" for name in ("pearson", "spearman")
        )
        errors = ""
        if "r2" in score:
            unit = str(summary["config"]["assay"].get("unit", ""))
            error = (
                f"MSE {score['mse']:.4f}" if labels else _describe_error(score["mse"], unit)
            )  # labels differ in unit
            errors = f", R2 {score['r2']:.4f}, {error}"
        mean = "mean of the labels: " if labels else ""
        rows = format_count(score["rows"], sequence_name(summary["config"]))
        lines.append(f"{split:10} {mean}{correlations}{errors} ({rows})")
        lines += [f"           {_describe_label(score, name)}" for name in labels if f"pearson/{name}" in score]
        lines += [f"warning    {warning}" for warning in warn_of_scale(score)]
    if summary.get("scores"):
        lines.append("           RMSE is the typical error. Predicting the mean has Pearson, Spearman and R2 of 0")
        if summary["config"]["finetune"].get("reverse_complement"):
            lines.append("           The scores are of one strand. `predict --both-strands` averages over both strands")
    names = ("directory", "model", "pretrained", "dataset", "note")
    lines += [f"{name:10} {summary[name]}" for name in names if name in summary]
    return "\n".join(lines)


def _suggest_epochs(summary: dict[str, Any], name: str) -> str:
    """Suggest more epochs for a stage that ended at its best step.

    Empty for a falling learning rate, which ends so anyway, and for pretraining alone, whose summary has no settings.
    """
    stage, config = summary["training"][name], summary.get("config")
    if config is None or stage["best_step"] < stage["steps"] or config[name].get("schedule", "plateau") != "plateau":
        return ""
    return f"; the last step is the best: try more {name}.max_epochs"


def _describe_masked_scores(masked: dict[str, Any]) -> list[str]:
    """Describe the scores on masked tokens of the best pretrained model and of the baselines."""
    lines = []
    if "insert_accuracy" in masked:
        targets = "hidden bases" if "most_frequent_base" in masked["baselines"] else "masked k-mers"
        lines.append(
            f"pretrain   accuracy of {targets} {masked['accuracy']:.4f} (in the insert "
            f"{masked['insert_accuracy']:.4f}), perplexity per base {masked['base_perplexity']:.3f} (in the insert "
            f"{masked['insert_base_perplexity']:.3f})"
        )
    for name, scores in masked["baselines"].items():
        unit = next((unit for unit in ("kmer", "base") if unit in scores), "")
        guess = f" {scores[unit]} (in the insert {scores[f'insert_{unit}']})" if unit else ""
        lines.append(
            f"           baseline {BASELINES[name]}{guess}: accuracy {scores['accuracy']:.4f} (in the insert "
            f"{scores['insert_accuracy']:.4f})"
        )
    warning = warn_below_baseline(masked)
    return [*lines, f"warning    {warning}"] if warning else lines


def _describe_label(score: dict[str, Any], label: str) -> str:
    """Describe the scores of one of several labels."""
    correlations = (
        f"{name.capitalize()} {_format_score(score, f'{name}/{label}')}" for name in ("pearson", "spearman")
    )
    error = _describe_error(score[f"mse/{label}"])
    return f"{label}: {', '.join(correlations)}, R2 {score[f'r2/{label}']:.4f}, {error}"


def _describe_error(mse: float, unit: str = "") -> str:
    """Describe a mean squared error and its root, the typical error in the unit of the labels."""
    return f"MSE {mse:.4f}, RMSE {math.sqrt(mse):.3f}{f' {unit}' if unit else ''}"


def _format_score(score: dict[str, Any], name: str) -> str:
    if name not in score.get("intervals", {}):  # a run of an earlier version, or a mean over labels
        return f"{score[name]:.4f}"
    low, high = score["intervals"][name]
    return f"{score[name]:.4f} (95 % {low:.4f} to {high:.4f})"
