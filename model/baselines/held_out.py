"""Held-out rows of a baseline with its predictions."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class HeldOutRows:
    """Predictions of a held-out split in the order of the ids.

    id: int64 (rows,), of the dataset; prediction, expression: on the scale of the labels, (rows,), or (rows, labels)
    for several labels, where a missing label is NaN.
    """

    id: npt.NDArray[np.int64]
    prediction: npt.NDArray[np.float32]
    expression: npt.NDArray[np.float32]
