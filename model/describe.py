"""What train.py says before and after the work."""

import os
from typing import Any

from model.bert import bert_config
from model.job import Job
from pipeline.describe import counted

CPU_RATE = 1.5e10
"""Operations a second and core, as seen in training here: only to warn by."""
USUAL_INSERT = 80
"""Bases."""


def describe_job(job: Job) -> str:
    """Size of model, data and batches, before the start."""
    index, world, config = job.index, job.world, job.config
    size = bert_config(config, index)
    lines = [
        f"run        {config.run.directory}",
        f"data       {job.shards}: " + ", ".join(f"{split} {index.rows(split):,}" for split in index.splits),
        f"model      BERT, {counted(size.num_hidden_layers, 'layer')}, hidden {size.hidden_size}, "
        f"{size.vocab_size} tokens",
        f"devices    {world.ranks} x {world.device.type}, {job.settings.precision}, ZeRO {job.settings.zero_stage}",
    ]
    for name, stage in (("pretrain", config.pretrain), ("finetune", config.finetune)):
        plan = job.settings.plan(stage.global_batch, world.ranks)
        lines.append(
            f"{name:10} {stage.global_batch} promoters a step = {counted(world.ranks, 'rank')} x "
            f"{counted(plan.micro_batches, 'micro-batch', 'micro-batches')} of at most {plan.micro_batch}"
        )
    if job.settings.note:
        lines.append(f"note       {job.settings.note}")
    days = _cpu_days(job)
    if world.device.type == "cpu" and days > 2:
        lines.append(
            f"warning    this model on these rows takes some {days:,.0f} days on a CPU; it is made for GPUs. "
            "A smaller one: --config configs/demo.yaml"
        )
    return "\n".join(lines)


def _cpu_days(job: Job) -> float:
    """Days for all epochs on this CPU, roughly: 6 operations a weight and token (forward and backward)."""
    config, index = job.config, job.index
    model = config.model
    weights = model.layers * (4 * model.hidden**2 + 2 * model.hidden * model.intermediate)
    bases = len(index.left_flank) + len(index.right_flank) + USUAL_INSERT
    promoters = index.rows("finetune/train") * config.finetune.max_epochs
    if config.finetune.start == "pretrained":
        promoters += index.rows("pretrain/train") * config.pretrain.max_epochs / index.k  # one frame of k
    return 6 * weights * bases * promoters / (CPU_RATE * (os.cpu_count() or 1)) / 86_400


def describe_summary(summary: dict[str, Any]) -> str:
    """Scores of the held-out splits, and where everything is."""
    lines = []
    for split, score in summary.get("scores", {}).items():
        lines.append(
            f"{split:10} Pearson {score['pearson']:.4f}, Spearman {score['spearman']:.4f} "
            f"({score['rows']:,} promoters; a mean predictor: 0)"
        )
    names = ("directory", "model", "pretrained", "dataset", "note")
    lines += [f"{name:10} {summary[name]}" for name in names if name in summary]
    return "\n".join(lines)
