"""Untrained regression model in the form of train.py, made in a second, for tests of predictions."""

from pathlib import Path

import torch
from transformers import BertConfig, BertForSequenceClassification

from model.artifacts.model_directory import count_positions
from pipeline.config.schema import Assay
from pipeline.tokens.kmers import vocabulary_size

K = 3


def save_model(
    folder: Path,
    assay: Assay,
    tokens: str = "frames",
    seed: int = 0,
    reverse_complement: bool = True,
    k: int = K,
    labels: tuple[str, ...] = (),
) -> Path:
    """Save a small BERT with random weights, large enough that its predictions differ."""
    torch.manual_seed(seed)
    size = BertConfig(
        vocab_size=vocabulary_size(k), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=max(256, count_positions(assay, k, tokens)),
        **({"id2label": dict(enumerate(labels))} if labels else {"num_labels": 1}),
        initializer_range=0.5,
        promoter_bert={
            "k": k, "tokens": tokens, "reverse_complement": reverse_complement, "assay": assay.model_dump(),
            **({"labels": list(labels)} if labels else {}),
        },
    )  # fmt: skip
    BertForSequenceClassification(size).save_pretrained(folder)
    return folder
