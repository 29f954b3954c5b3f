"""Compute transformers' ModernBERT without its unused outputs, and without waiting for the device.

Layers attend to all tokens or to a window around each one, and positions are rotations of queries and keys (Warner et
al. 2024, https://arxiv.org/abs/2412.13663). The weights and results are those of the stock classes. The computation is
written out here, because the layers of transformers 4 and 5 are called differently, and version 4 unpads sequences.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F

GLOBAL_THETA, LOCAL_THETA = 160_000.0, 10_000.0
"""Base periods of the rotations in global and local layers: the defaults of ModernBertConfig."""


def encode(
    encoder: Any,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor | None,
    pick: Callable[[torch.Tensor], torch.Tensor] = lambda hidden: hidden,
) -> torch.Tensor:
    """Compute the last hidden states of the tokens that `pick` selects, of all tokens by default.

    encoder: a ModernBertModel; input_ids, attention_mask: (rows, columns) int64, None if no row has padding; pick:
    (rows, columns, width) -> (..., width).
    """
    config, columns, device = encoder.config, input_ids.shape[1], input_ids.device
    position = torch.arange(columns, device=device)
    near = (position[:, None] - position).abs() <= config.local_attention // 2
    global_mask, local_mask = None, near
    if attention_mask is not None:
        keys = attention_mask.bool()
        global_mask = keys[:, None, None, :]
        # A query of the padding may have no key in its window: then its softmax would be NaN.
        local_mask = (near & (keys[:, None, :] | ~keys[:, :, None]))[:, None]
    kinds = (
        (global_mask, *_rotations(config, position, GLOBAL_THETA)),
        (local_mask, *_rotations(config, position, LOCAL_THETA)),
    )
    hidden = encoder.embeddings(input_ids=input_ids)
    last = len(encoder.layers) - 1
    for i, layer in enumerate(encoder.layers):
        is_local = i % config.global_attn_every_n_layers > 0
        context = _attend(layer.attn, layer.attn_norm(hidden), *kinds[is_local])
        if i == last:
            context, hidden = pick(context), pick(hidden)
        hidden = hidden + layer.attn.out_drop(layer.attn.Wo(context))
        hidden = hidden + layer.mlp(layer.mlp_norm(hidden))
    states: torch.Tensor = encoder.final_norm(hidden)
    return states


def pool_mean(model: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
    """Compute the input of the output layer of a ModernBertForSequenceClassification: (rows, width).

    It is the mean over the tokens, [CLS] and [SEP] included, in float32, then a dense layer.
    """
    hidden = encode(model.model, input_ids, attention_mask)
    weight = torch.ones_like(input_ids) if attention_mask is None else attention_mask
    weight = weight[..., None].float()
    mean = (hidden.float() * weight).sum(1) / weight.sum(1)
    pooled: torch.Tensor = model.drop(model.head(mean.to(model.head.dense.weight.dtype)))
    return pooled


def _attend(
    attention: Any, hidden: torch.Tensor, mask: torch.Tensor | None, cosine: torch.Tensor, sine: torch.Tensor
) -> torch.Tensor:
    """Compute the context of each token: (rows, columns, width).

    mask: bool, True where a query reads a key; None: everywhere.
    """
    config, (rows, columns, width) = attention.config, hidden.shape
    parts = attention.Wqkv(hidden).view(rows, columns, 3, config.num_attention_heads, -1)
    query, key, value = parts.permute(2, 0, 3, 1, 4)
    context = F.scaled_dot_product_attention(
        _rotate(query, cosine, sine),
        _rotate(key, cosine, sine),
        value,
        attn_mask=mask,
        dropout_p=config.attention_dropout if attention.training else 0.0,
    )
    return context.transpose(1, 2).reshape(rows, columns, width)


def _rotations(config: Any, position: torch.Tensor, theta: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute cosines and sines of the rotation of each position: float32 (columns, width of a head)."""
    width = config.hidden_size // config.num_attention_heads
    frequency = theta ** (-torch.arange(0, width, 2, device=position.device).float() / width)
    angle = (position[:, None] * frequency).repeat(1, 2)
    return angle.cos(), angle.sin()


def _rotate(vectors: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
    """Rotate pairs of channels by their position. vectors: (rows, heads, columns, width of a head)."""
    first, second = vectors.chunk(2, -1)
    rotated = vectors.float() * cosine + torch.cat([-second, first], -1).float() * sine
    return rotated.to(vectors.dtype)
