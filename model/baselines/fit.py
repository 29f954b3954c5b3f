"""Result of the fit of a baseline, which its run directory is written from."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

OnProgress = Callable[[int, int, str], None]
"""Called with the units done, the total, and a note."""
HELD_OUT = ("valid", "test")


@dataclass(frozen=True)
class HeldOutRows:
    """Predictions of a held-out split in the order of the ids.

    id: int64 (rows,), of the dataset; prediction, expression: on the scale of the labels, (rows,), or (rows, labels)
    for several labels, where a missing label is NaN.
    """

    id: npt.NDArray[np.int64]
    prediction: npt.NDArray[np.float32]
    expression: npt.NDArray[np.float32]


@dataclass(frozen=True)
class BaselineFit:
    """Predictions of a baseline by split, and how it was fitted.

    training: as in summary.json; log: lines of metrics.jsonl; chosen: what the validation split chose; label_mean,
    label_sd: of the training labels, one per label if there are several.
    """

    held_out: dict[str, HeldOutRows]
    training: dict[str, Any]
    log: list[dict[str, Any]]
    chosen: dict[str, Any]
    label_mean: float | list[float]
    label_sd: float | list[float]
