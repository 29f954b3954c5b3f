"""What train.py says before and after the work."""

from typing import Any

from model.bert import bert_config
from model.job import Job


def describe_job(job: Job) -> str:
    """Size of model, data and batches, before the start."""
    index, world, config = job.index, job.world, job.config
    size = bert_config(config, index)
    lines = [
        f"run        {config.run.directory}",
        f"data       {job.folder}: " + ", ".join(f"{split} {index.rows(split):,}" for split in index.splits),
        f"model      BERT, {size.num_hidden_layers} layers, hidden {size.hidden_size}, {size.vocab_size} tokens",
        f"devices    {world.ranks} x {world.device.type}, {job.settings.precision}, ZeRO {job.settings.zero_stage}",
    ]
    for name, stage in (("pretrain", config.pretrain), ("finetune", config.finetune)):
        plan = job.settings.plan(stage.global_batch, world.ranks)
        lines.append(
            f"{name:10} {stage.global_batch} promoters a step = {world.ranks} ranks x {plan.micro_batches} "
            f"micro-batches of at most {plan.micro_batch}"
        )
    if job.settings.note:
        lines.append(f"note       {job.settings.note}")
    return "\n".join(lines)


def describe_summary(summary: dict[str, Any]) -> str:
    """Scores of the held-out splits, and where everything is."""
    lines = []
    for split, score in summary.get("scores", {}).items():
        lines.append(
            f"{split:10} Pearson {score['pearson']:.4f}, Spearman {score['spearman']:.4f} "
            f"({score['rows']:,} promoters; a mean predictor: 0)"
        )
    lines += [
        f"{name:10} {summary[name]}" for name in ("directory", "model", "pretrained", "dataset") if name in summary
    ]
    return "\n".join(lines)
