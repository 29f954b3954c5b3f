"""A configuration -> what a stage trains."""

from pathlib import Path

from transformers import PreTrainedModel

from model.bert.build import masked_language_model, regression_model
from model.bert.objectives import FinetuneTask, PretrainTask
from model.config import Config, StageName
from pipeline.shards.index import Index


def stage_task(
    config: Config, index: Index, stage: StageName, start: Path | None = None
) -> tuple[PreTrainedModel, PretrainTask | FinetuneTask]:
    """The BERT of a stage, and the module around it. start: folder of the pretrained model; None: fresh weights."""
    if stage == "pretrain":
        model = masked_language_model(config, index)
        flanks = len(index.left_flank), len(index.right_flank)
        return model, PretrainTask(
            model, index.k, config.pretrain.mask_share, flanks, config.pretrain.masked == "insert"
        )
    settings = config.finetune
    model = regression_model(config, index, start, frozen=settings.start == "frozen")
    return model, FinetuneTask(model, index.k, index.label_mean, index.label_sd, settings.tokens, settings.loss)
