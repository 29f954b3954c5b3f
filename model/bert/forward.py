"""transformers' own BERT, run without what nobody reads and without waiting for the device.

A stage reads few outputs of the last layer: fine-tuning the [CLS] of each sequence, pretraining the masked k-mers. Its
attention is worked out for all tokens, what follows (two thirds of a layer, and the head) for those alone: the same
numbers, a quarter of the work less with three layers. Dropout falls otherwise than in a whole last layer.
"""

from collections.abc import Callable
from typing import Any

import torch

Pick = Callable[[torch.Tensor], torch.Tensor]
"""(rows, columns, width) -> what is read of it, (read, width)."""


def encode(bert: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor, pick: Pick) -> torch.Tensor:
    """The last hidden states that `pick` takes: (read, width). bert: a BertModel with SDPA attention.

    input_ids, attention_mask: (rows, columns). The mask is given by keys: transformers would otherwise ask the device
    whether there is any padding, and make a mask of (rows, columns, columns).
    """
    seen = attention_mask.bool()[:, None, None, :]
    hidden = bert.embeddings(input_ids=input_ids)
    *whole, last = bert.encoder.layer
    for layer in whole:
        out = layer(hidden, seen)
        hidden = out if isinstance(out, torch.Tensor) else out[0]  # a tuple in transformers 4
    context = last.attention.self(hidden, seen)[0]
    read: torch.Tensor = last.feed_forward_chunk(last.attention.output(pick(context), pick(hidden)))
    return read


def first_tokens(hidden: torch.Tensor) -> torch.Tensor:
    """Those of the [CLS]."""
    return hidden[:, 0]


def tokens_at(places: torch.Tensor) -> Pick:
    """Those at places of all rows end to end: (read,) int64."""
    return lambda hidden: hidden.flatten(0, 1).index_select(0, places)


def expression_logits(model: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
    """The output of a BertForSequenceClassification with one label: (rows,)."""
    read = encode(model.bert, input_ids, attention_mask, first_tokens)
    pooled = model.dropout(model.bert.pooler(read[:, None]))
    logits: torch.Tensor = model.classifier(pooled.to(model.classifier.weight.dtype))
    return logits[:, 0]


def kmer_logits(
    model: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor, places: torch.Tensor
) -> torch.Tensor:
    """The output of a BertForMaskedLM at places of all rows end to end: (read, vocabulary)."""
    logits: torch.Tensor = model.cls(encode(model.bert, input_ids, attention_mask, tokens_at(places)))
    return logits
