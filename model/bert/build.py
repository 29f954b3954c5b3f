"""Build transformers' BERT at the configured size, and the training objective around it."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # all files are local, so transformers must not look for downloads

import torch
from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification
from transformers.utils import logging as transformers_logging

from model.artifacts.manifest import read_manifest
from model.artifacts.model_directory import RESTORE, count_positions, read_model_facts, read_model_settings
from model.bert.objectives import FinetuneTask, PretrainTask
from model.config import Config, StageName
from pipeline.errors import UserError
from pipeline.shards.index import Index
from pipeline.tokens.kmers import PAD, vocabulary_size

transformers_logging.disable_progress_bar()
transformers_logging.set_verbosity_error()  # it warns about a new pooler and head, which are intended

WEIGHTS = "model.safetensors"
SIZES = (
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
    "max_position_embeddings",
)  # fmt: skip
"""Keys of config.json that must be equal before the weights of one model can initialize another."""


def build_task(
    config: Config, index: Index, stage: StageName, start: Path | None = None
) -> PretrainTask | FinetuneTask:
    """Build the BERT of a stage and the objective around it.

    start: folder of the weights that fine-tuning starts from; None: random weights.
    """
    if stage == "pretrain":
        flanks = len(index.left_flank), len(index.right_flank)
        settings = config.pretrain
        language_model = BertForMaskedLM(make_bert_config(config, index))
        return PretrainTask(language_model, index.k, settings.mask_share, flanks, settings.masked == "insert")
    finetune = config.finetune
    model = build_regression_model(config, index, start)
    if finetune.start == "frozen":
        model.bert.embeddings.requires_grad_(False)
        model.bert.encoder.requires_grad_(False)
    return FinetuneTask(model, index.k, index.label_mean, index.label_sd, finetune.tokens, finetune.loss)


def make_bert_config(config: Config, index: Index) -> BertConfig:
    """Make the BertConfig of a run; its key `promoter_bert` records the assay and tokens for users of the model.

    The number of positions is the token count of the longest valid promoter with [CLS] and [SEP], rounded up to a
    multiple of 8.
    """
    longest = count_positions(config.assay, index.k, config.finetune.tokens)
    return BertConfig(
        vocab_size=vocabulary_size(index.k),
        hidden_size=config.model.hidden,
        num_hidden_layers=config.model.layers,
        num_attention_heads=config.model.heads,
        intermediate_size=config.model.intermediate,
        hidden_dropout_prob=config.model.dropout,
        attention_probs_dropout_prob=config.model.dropout,
        max_position_embeddings=-(-longest // 8) * 8,
        pad_token_id=PAD,
        **_label_names(index.labels),
        problem_type="regression",
        promoter_bert={
            "k": index.k,
            "tokens": config.finetune.tokens,
            "reverse_complement": config.finetune.reverse_complement,
            "assay": config.assay.model_dump(),
            **({"labels": index.labels} if index.labels else {}),
            "label_mean": index.label_mean,
            "label_sd": index.label_sd,
            "dataset_key": index.dataset_key,
            "shard_key": index.key,
        },
    )


def _label_names(labels: Sequence[str]) -> dict[str, Any]:
    """Make the settings of BertConfig for the outputs of the model. labels: names of several; empty for one."""
    if not labels:
        return {"num_labels": 1}
    return {"id2label": dict(enumerate(labels)), "label2id": {name: place for place, name in enumerate(labels)}}


def count_parameters(size: BertConfig) -> int:
    """Count the weights of a regression model of this size, without allocating any."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in BertForSequenceClassification(size).parameters())


def build_regression_model(config: Config, index: Index, pretrained: Path | None) -> BertForSequenceClassification:
    """Build a BERT with a pooler and a linear head of one output per label.

    pretrained: folder of the model that provides the BERT weights; None: random weights.
    """
    settings = make_bert_config(config, index)
    if pretrained is None:
        return BertForSequenceClassification(settings)
    return BertForSequenceClassification.from_pretrained(pretrained, config=settings)


def load_regression_model(folder: Path) -> BertForSequenceClassification:
    """Load a fine-tuned model of train.py. Raises UserError if the folder holds none, or a corrupt one."""
    read_model_facts(folder)
    if not (folder / WEIGHTS).is_file():  # transformers would also read pickles, and the files that an index names
        raise UserError(f"{folder / WEIGHTS}: no such file; expected the weights of train.py")
    try:
        return BertForSequenceClassification.from_pretrained(folder, use_safetensors=True)
    except Exception as error:  # transformers raises errors of many types for an invalid config.json
        raise UserError(f"{folder}: the model cannot be loaded: {error}; {RESTORE}") from None


def check_pretrained(folder: Path, required: BertConfig) -> None:
    """Check that fine-tuning a BERT of the required size can start from the model in a folder.

    Raises UserError if the folder holds no masked language model, one of another size, or an unfinished one.
    """
    expected = "expected the folder runs/NAME/pretrained of another run"
    settings = read_model_settings(folder, expected)
    if settings.get("architectures") != ["BertForMaskedLM"]:
        raise UserError(f"{folder}: not a masked language model; {expected}")
    manifest = read_manifest(folder)  # missing if the user changed the model on purpose
    if manifest is not None and (manifest.progress is None or not manifest.progress.ended):
        raise UserError(
            f"finetune.pretrained: the pretraining of {folder} has not ended, so its weights may still improve; "
            "fix: finish that run first"
        )
    differences = [
        f"{name}: expected {getattr(required, name)}, got {settings.get(name)}"
        for name in SIZES
        if settings.get(name) != getattr(required, name)
    ]
    if differences:
        raise UserError(
            f"finetune.pretrained: the model in {folder} differs in size ({'; '.join(differences)}); "
            "fix: use the same shards.k, assay.flank and model section in both runs"
        )
