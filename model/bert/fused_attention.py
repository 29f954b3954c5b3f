"""Compute the query, key and value projections of BERT's attention in one matrix product instead of three.

A GPU computes one product of three times the width faster than three products, and reads the hidden states once. The
weights are concatenated in each pass, so parameters, checkpoints and exports do not change. On a CPU there is no gain.
"""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers.models.bert.modeling_bert import BertSelfAttention


class FusedSelfAttention(nn.Module):
    """Self-attention with the parameters of a BertSelfAttention, and the same results."""

    def __init__(self, attention: BertSelfAttention) -> None:
        super().__init__()
        self.query, self.key, self.value = attention.query, attention.key, attention.value
        self.heads, self.dropout = attention.num_attention_heads, attention.dropout
        self.train(attention.training)

    def forward(
        self, hidden: torch.Tensor, attention_mask: torch.Tensor | None = None, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, None]:
        """Compute the context (rows, columns, width). Other arguments of transformers' layer are ignored.

        hidden: (rows, columns, width); attention_mask: bool, broadcast to (rows, heads, columns, columns).
        """
        projections = self.query, self.key, self.value
        weight, bias = torch.cat([p.weight for p in projections]), torch.cat([p.bias for p in projections])
        rows, columns, _width = hidden.shape
        split = F.linear(hidden, weight, bias).view(rows, columns, 3, self.heads, -1)
        query, key, value = split.permute(2, 0, 3, 1, 4).unbind(0)
        context = F.scaled_dot_product_attention(
            query, key, value, attn_mask=attention_mask, dropout_p=self.dropout.p if self.training else 0.0
        )
        return context.transpose(1, 2).reshape(rows, columns, -1), None


def fuse_projections(model: nn.Module) -> int:
    """Fuse the projections of each BertSelfAttention in a model. Returns their number."""
    found = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if isinstance(child, BertSelfAttention)
    ]
    for parent, name, attention in found:
        setattr(parent, name, FusedSelfAttention(attention))
    return len(found)
