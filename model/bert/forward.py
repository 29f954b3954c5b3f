"""Run transformers' BERT and ModernBERT without unused outputs and without waiting for the device.

The head uses few outputs of the last layer: the [CLS] in fine-tuning, the masked k-mers in pretraining. So the last
layer's attention is computed for all tokens, but its other parts, about 70 % of a layer, for those tokens only. The
results are the same, and a model of three layers saves a quarter of the work. Only the draws of dropout differ from
those of a whole last layer.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from model.bert import modernbert

Pick = Callable[[torch.Tensor], torch.Tensor]
"""Function that selects tokens: (rows, columns, width) -> (picked, width)."""


def encode(
    bert: Any,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor | None,
    pick: Pick,
    token_type_ids: torch.Tensor | None = None,
) -> torch.Tensor:
    """Compute the last hidden states of the tokens that `pick` selects: (picked, width).

    bert: a BertModel with SDPA attention; input_ids, attention_mask: (rows, columns) int64; None: no row has padding;
    token_type_ids: (rows, columns) int64; None: all 0.
    """
    # With a two-dimensional mask transformers would wait for the device, and allocate a mask of columns^2 per row.
    keys = None if attention_mask is None else attention_mask.bool()[:, None, None, :]
    hidden = bert.embeddings(input_ids=input_ids, token_type_ids=token_type_ids)
    *inner, last = bert.encoder.layer
    for layer in inner:
        out = layer(hidden, keys)
        hidden = out if isinstance(out, torch.Tensor) else out[0]  # a tuple in transformers 4
    context = last.attention.self(hidden, keys)[0]
    picked: torch.Tensor = last.feed_forward_chunk(last.attention.output(pick(context), pick(hidden)))
    return picked


class ExpressionHead(nn.Linear):
    """Output layer that computes in float32 in evaluation, even if its weights are in half precision.

    Adjacent fp16 numbers between 8 and 16 are 0.008 apart, so half-precision outputs would tie and distort the metrics.
    """

    @classmethod
    def replace(cls, layer: nn.Linear) -> "ExpressionHead":
        """Make a head that shares the weights of a linear layer with a bias."""
        head = cls(layer.in_features, layer.out_features, device="meta")
        head.weight, head.bias = layer.weight, layer.bias
        return head.train(layer.training)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Compute the outputs (rows, out_features), float32 in evaluation. input: (rows, in_features)."""
        if self.training:
            return super().forward(input)
        return F.linear(input.float(), self.weight.float(), self.bias.float())


def compute_expression_logits(
    model: Any,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor | None,
    token_types: torch.Tensor | None = None,
) -> torch.Tensor:
    """Compute the output of a sequence classifier: (rows,) for one output, (rows, outputs) for several.

    model: for sequence classification, a BERT or a ModernBERT; input_ids, attention_mask: (rows, columns) int64; None:
    no row has padding; token_types: of a BERT, (rows,) int64, of all tokens of a row; None: all 0.
    """
    if is_modernbert(model):
        pooled = modernbert.pool_mean(model, input_ids, attention_mask)
    else:
        types = None if token_types is None else token_types[:, None].expand_as(input_ids)
        cls = encode(model.bert, input_ids, attention_mask, lambda hidden: hidden[:, 0], types)
        pooled = model.dropout(model.bert.pooler(cls[:, None]))
    logits: torch.Tensor = model.classifier(pooled.to(model.classifier.weight.dtype))
    return logits[:, 0] if model.config.num_labels == 1 else logits


def compute_kmer_logits(
    model: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor | None, positions: torch.Tensor
) -> torch.Tensor:
    """Compute the logits of a masked language model at some positions: (positions, token ids).

    model: a BertForMaskedLM or a ModernBertForMaskedLM.

    input_ids, attention_mask: as for encode; positions: int64 indices into the flattened (rows, columns).
    """

    def pick(hidden: torch.Tensor) -> torch.Tensor:
        return hidden.flatten(0, 1).index_select(0, positions)

    logits: torch.Tensor
    if is_modernbert(model):
        logits = model.decoder(model.head(modernbert.encode(model.model, input_ids, attention_mask, pick)))
    else:
        logits = model.cls(encode(model.bert, input_ids, attention_mask, pick))
    return logits


def compute_token_logits(model: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
    """Compute the outputs of all tokens: (rows, columns, outputs).

    model: for token classification, a BERT or a ModernBERT; input_ids, attention_mask: as for encode.
    """
    logits: torch.Tensor
    if is_modernbert(model):
        logits = model.classifier(model.drop(model.head(modernbert.encode(model.model, input_ids, attention_mask))))
    else:
        states = encode(model.bert, input_ids, attention_mask, lambda hidden: hidden)
        logits = model.classifier(model.dropout(states))
    return logits


def is_modernbert(model: Any) -> bool:
    """Return whether a model of transformers is a ModernBERT; else it is a BERT."""
    return bool(model.config.model_type == "modernbert")
