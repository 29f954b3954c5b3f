"""Untrained regression model in the form of train.py, made in a second, for tests of predictions."""

from pathlib import Path

import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    ModernBertConfig,
    ModernBertForSequenceClassification,
)

from model.artifacts.model_directory import count_positions
from pipeline.config.schema import Assay
from pipeline.tokens.kmers import CLS, PAD, SEP, vocabulary_size

K = 3


def save_model(
    folder: Path,
    assay: Assay,
    tokens: str = "frames",
    seed: int = 0,
    reverse_complement: bool = True,
    k: int = K,
    labels: tuple[str, ...] = (),
    modernbert: bool = False,
) -> Path:
    """Save a small BERT or ModernBERT with random weights, large enough that its predictions differ."""
    torch.manual_seed(seed)
    size = (ModernBertConfig if modernbert else BertConfig)(
        vocab_size=vocabulary_size(k), hidden_size=16, num_hidden_layers=2 if modernbert else 1, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=max(256, count_positions(assay, k, tokens)),
        **({"id2label": dict(enumerate(labels))} if labels else {"num_labels": 1}),
        initializer_range=0.5,
        **({"local_attention": 8, "global_attn_every_n_layers": 2, "classifier_pooling": "mean"} if modernbert else {}),
        **(dict.fromkeys(("cls_token_id", "bos_token_id"), CLS) if modernbert else {}),
        **(dict.fromkeys(("sep_token_id", "eos_token_id"), SEP) if modernbert else {}),
        **({"pad_token_id": PAD} if modernbert else {}),
        promoter_bert={
            "k": k, "tokens": tokens, "reverse_complement": reverse_complement, "assay": assay.model_dump(),
            **({"labels": list(labels)} if labels else {}),
        },
    )  # fmt: skip
    (ModernBertForSequenceClassification if modernbert else BertForSequenceClassification)(size).save_pretrained(folder)
    return folder
