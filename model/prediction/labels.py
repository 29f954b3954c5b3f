"""Columns of the predictions of several labels, and scores of the predictions on labelled rows."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from model.prediction.inputs import Part
from model.runs.training_rows import SequenceHashes, find_training_rows
from model.scoring.metrics import pearson, spearman
from pipeline.errors import UserError


def label_columns(name: str, labels: tuple[str, ...]) -> list[str]:
    """Name the columns of a value per label: `effect_Dev`, `effect_Hk`, or `effect` for one label."""
    return [f"{name}_{label}" for label in labels] if len(labels) > 1 else [name]


@dataclass(frozen=True)
class LabelScores:
    """Correlations of predictions with labels. rows: with both.

    training_rows: those of them that the model was fine-tuned on; None if its run or dataset is not at hand.
    """

    rows: int
    pearson: float
    spearman: float
    training_rows: int | None = None


class LabelScorer:
    """Collects predictions and labels of the rows that have both, if the model has one label."""

    def __init__(self) -> None:
        self._pairs: list[tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]] = []
        self._hashes = SequenceHashes()

    def add(self, part: Part, values: npt.NDArray[np.float32]) -> None:
        """Add the rows of a part. values: predictions of its valid rows."""
        if part.label is None or values.ndim > 1:
            return
        labels = part.label[part.table["problem"].is_null().to_numpy()]
        present = np.isfinite(labels)
        self._pairs.append((values[present], labels[present]))
        self._hashes.add(part.valid_sequences.filter(pa.array(present)))

    def scores(self, model: Path) -> LabelScores | None:
        """Return the scores; None if there are fewer than two rows. model: its folder, to find its training rows."""
        rows = sum(len(labels) for _, labels in self._pairs)
        if rows < 2:
            return None
        predictions, labels = (np.concatenate(side) for side in zip(*self._pairs, strict=True))
        training_rows = None
        with suppress(UserError):
            training_rows = int(find_training_rows(model, self._hashes.read()).sum())
        return LabelScores(rows, pearson(predictions, labels), spearman(predictions, labels), training_rows)
