"""transformers' own BERT, sized by config.yaml."""

import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing is ever downloaded: all files are the run's own

import torch
from safetensors import SafetensorError
from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification
from transformers.utils import logging as transformers_logging

from model.artifacts.manifest import read_manifest
from model.artifacts.model_directory import facts_of_model, settings_of
from model.config import Config
from pipeline.errors import UserError
from pipeline.shards.index import Index
from pipeline.tokens.kmers import PAD, vocabulary_size

transformers_logging.disable_progress_bar()
transformers_logging.set_verbosity_error()  # its report of a fresh pooler and head is what we want

SIZES = (
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
    "max_position_embeddings",
)  # fmt: skip
"""What must be equal for the weights of one model to fit into another."""


def bert_config(config: Config, index: Index) -> BertConfig:
    """The size of the BERT, and what must be known to use it: see the keys under `promoter_bert`."""
    bases = config.assay.max_insert + len(index.left_flank) + len(index.right_flank)
    longest = (bases // index.k if config.finetune.tokens == "frames" else bases) + 2
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
        num_labels=1,
        problem_type="regression",
        promoter_bert={
            "k": index.k,
            "tokens": config.finetune.tokens,
            "reverse_complement": config.finetune.reverse_complement,
            "assay": config.assay.model_dump(),
            "label_mean": index.label_mean,
            "label_sd": index.label_sd,
            "dataset_key": index.dataset_key,
            "shard_key": index.key,
        },
    )


def parameters(size: BertConfig) -> int:
    """Numbers in a regression model of this size; nothing is allocated."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in BertForSequenceClassification(size).parameters())


def masked_language_model(config: Config, index: Index) -> BertForMaskedLM:
    """A fresh BERT to pretrain."""
    return BertForMaskedLM(bert_config(config, index))


def regression_model(
    config: Config, index: Index, pretrained: Path | None, frozen: bool = False
) -> BertForSequenceClassification:
    """BERT, pooler and a linear head with one output; the BERT from `pretrained` where given.

    frozen: embeddings and layers are not to be trained.
    """
    settings = bert_config(config, index)
    if pretrained is None:
        model = BertForSequenceClassification(settings)
    else:
        model = BertForSequenceClassification.from_pretrained(pretrained, config=settings)
    if frozen:
        for part in (model.bert.embeddings, model.bert.encoder):
            part.requires_grad_(False)
    return model


def check_pretrained(folder: Path, wanted: BertConfig) -> None:
    """Raise UserError where a folder holds no masked language model that one of this size can start from, or one whose
    training goes on."""
    expected = "expected the folder runs/NAME/pretrained that train.py wrote"
    settings = settings_of(folder, expected)
    if settings.get("architectures") != ["BertForMaskedLM"]:
        raise UserError(f"{folder}: not a masked language model; {expected}")
    manifest = read_manifest(folder)  # none where the model was changed on purpose
    if manifest is not None and (manifest.standing is None or not manifest.standing.ended):
        raise UserError(
            f"finetune.pretrained: the pretraining of {folder} has not ended, and better weights may come: let its run "
            "go on to its end first"
        )
    differing = [
        f"{name} {settings.get(name)}, this run's {getattr(wanted, name)}"
        for name in SIZES
        if settings.get(name) != getattr(wanted, name)
    ]
    if differing:
        raise UserError(
            f"finetune.pretrained: the model in {folder} is another one ({'; '.join(differing)}): give this run its k, "
            "flank and model section"
        )


def load_regression_model(folder: Path) -> BertForSequenceClassification:
    """A model that train.py wrote. Raises UserError where the folder holds no such model."""
    facts_of_model(folder)
    try:
        return BertForSequenceClassification.from_pretrained(folder)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{folder}: the weights cannot be read: {error}") from None
