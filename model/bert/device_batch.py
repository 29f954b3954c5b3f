"""Move a stream batch to the device that trains or predicts."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from model.bert.masking import Draws
from pipeline.stream.stream import Batch


@dataclass(frozen=True)
class DeviceBatch:
    """A micro-batch as tensors.

    tokens: (rows, width) uint8 or int32 ids, one per base; lengths: (rows,) bases; expression: float32, (rows,)
    or (rows, labels) for several labels, NaN if missing; weight: (rows,) float32, 0 for padding rows; draws: random
    numbers of these rows for masking, None in fine-tuning.
    """

    tokens: torch.Tensor
    lengths: torch.Tensor
    expression: torch.Tensor
    weight: torch.Tensor
    draws: Draws | None


def batch_to_device(batch: Batch, width: int, draws: Draws | None, device: torch.device) -> DeviceBatch:
    """Copy a batch to the device, with `width` ids per promoter. draws: random draws of the whole global batch.

    The copies use the CUDA stream of the computation, as 4,096 promoters (2 MB) take only about 0.1 ms.
    """
    return DeviceBatch(
        tokens=to_device(fit_width(batch.tokens, width), device),
        lengths=to_device(batch.lengths, device),
        expression=to_device(batch.expression, device),
        weight=to_device(batch.weight, device),
        draws=draws.slice_rows(batch.first_row, len(batch.id)) if draws is not None else None,
    )


def fit_width(tokens: npt.NDArray[np.unsignedinteger], width: int) -> npt.NDArray[Any]:
    """Cut or zero-pad ids (rows, bases) to (rows, width), as uint8 or int32, which torch accepts as indices."""
    if tokens.shape[1] < width:
        tokens = np.pad(tokens, ((0, 0), (0, width - tokens.shape[1])))
    tokens = tokens[:, :width]
    return tokens if tokens.dtype == np.uint8 else tokens.astype(np.int32)


def to_device(array: npt.NDArray[Any], device: torch.device) -> torch.Tensor:
    """Copy an array to the device, keeping shape and dtype; pinned memory makes copies to a GPU asynchronous."""
    tensor = torch.from_numpy(array)
    if device.type != "cuda":
        return tensor.to(device)
    pinned = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return pinned.copy_(tensor).to(device, non_blocking=True)
