"""Run transformers' BERT without unread outputs and without waiting for the device.

A stage reads few outputs of the last layer: fine-tuning the [CLS] of each sequence, pretraining the masked k-mers.
The last layer's attention is computed for all tokens. The rest (two thirds of a layer, and the head) is computed for
the read tokens alone. The numbers are the same; with three layers a quarter of the work is saved. Dropout draws differ
from those of a whole last layer.
"""

from collections.abc import Callable
from typing import Any

import torch

Pick = Callable[[torch.Tensor], torch.Tensor]
"""Function that selects the read tokens: (rows, columns, width) -> (read, width)."""


def encode(bert: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor, pick: Pick) -> torch.Tensor:
    """Compute the last hidden states of the tokens that `pick` selects: (read, width).

    bert: a BertModel with SDPA attention; input_ids, attention_mask: (rows, columns) int64. The mask is passed per key:
    otherwise transformers asks the device whether there is padding, and makes a mask of (rows, columns, columns).
    """
    keys = attention_mask.bool()[:, None, None, :]
    hidden = bert.embeddings(input_ids=input_ids)
    *whole, last = bert.encoder.layer
    for layer in whole:
        out = layer(hidden, keys)
        hidden = out if isinstance(out, torch.Tensor) else out[0]  # a tuple in transformers 4
    context = last.attention.self(hidden, keys)[0]
    read: torch.Tensor = last.feed_forward_chunk(last.attention.output(pick(context), pick(hidden)))
    return read


def expression_logits(model: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
    """Compute the one output of a BertForSequenceClassification: (rows,)."""
    read = encode(model.bert, input_ids, attention_mask, lambda hidden: hidden[:, 0])
    pooled = model.dropout(model.bert.pooler(read[:, None]))
    logits: torch.Tensor = model.classifier(pooled.to(model.classifier.weight.dtype))
    return logits[:, 0]


def kmer_logits(
    model: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor, places: torch.Tensor
) -> torch.Tensor:
    """Compute the output of a BertForMaskedLM at places, (read,) int64, counted through all rows: (read, ids)."""
    read = encode(model.bert, input_ids, attention_mask, lambda hidden: hidden.flatten(0, 1).index_select(0, places))
    logits: torch.Tensor = model.cls(read)
    return logits
