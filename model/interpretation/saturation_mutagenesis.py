"""In-silico saturation mutagenesis: effects of all single substitutions in an insert on predicted expression.

from promoter_bert import saturation_mutagenesis
result = saturation_mutagenesis("runs/demo", "TGCATTTTTTTCACATC...GGTTACGGCTGTT")
result.importance, result.table().to_pandas()
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from model.prediction.validate import repaired
from pipeline.config.schema import Assay
from pipeline.errors import UserError
from pipeline.runtime.text import shorten

if TYPE_CHECKING:
    from model.prediction.predictor import Predictor

BASES = "ACGT"


@dataclass(frozen=True)
class MutagenesisResult:
    """An insert of L bases, and the predictions for its promoter and for all single substitutions.

    prediction: expression of the unchanged promoter. predictions: float32 (L, 4), columns in the order of BASES; the
    entry of the original base is `prediction`. Both on the scale of the training labels.
    """

    insert: str
    prediction: float
    predictions: npt.NDArray[np.float32]
    unit: str = ""
    """Unit of expression (assay.unit); empty for arbitrary units."""

    @property
    def effects(self) -> npt.NDArray[np.float32]:
        """Return the change of predicted expression by each substitution: float32 (L, 4), 0 for the original base."""
        return self.predictions - np.float32(self.prediction)

    @property
    def is_substitution(self) -> npt.NDArray[np.bool_]:
        """Return whether each entry is a substitution: bool (L, 4); three per position, four at an N."""
        return np.array([[base != reference for base in BASES] for reference in self.insert])

    @property
    def importance(self) -> npt.NDArray[np.float32]:
        """Return the mean loss of expression over the substitutions of each base: float32 (L,); negative for a gain."""
        return np.asarray(-self.effects.sum(1) / self.is_substitution.sum(1), np.float32)

    @property
    def most_important(self) -> int:
        """Return the position, from 0, of the base with the largest absolute importance."""
        return int(np.argmax(np.abs(self.importance)))

    def table(self) -> pa.Table:
        """Return one row per substitution: position in the insert (from 1), reference, base, prediction, effect."""
        place, base = np.nonzero(self.is_substitution)
        return pa.table(
            {
                "position": pa.array(place + 1, pa.int32()),
                "reference": [self.insert[i] for i in place],
                "base": [BASES[i] for i in base],
                "prediction": self.predictions[place, base],
                "effect": self.effects[place, base],
            }
        )


def saturation_mutagenesis(
    model: "Predictor | Path | str", sequence: str, overrides: Sequence[str] = (), label: str | None = None
) -> MutagenesisResult:
    """Predict a promoter, adapters included, and all promoters with one substitution in its insert.

    model: a Predictor, a model folder or a run directory. overrides: repairs of the sequence such as
    assay.lower_case=upper; unused with a Predictor. label: its name if the model has several. Raises UserError for an
    invalid promoter, an empty insert, and an unknown label.
    """
    results = mutagenesis_by_label(model, sequence, overrides)
    return results[choose_label(list(results), label)]


def choose_label(names: Sequence[str], label: str | None) -> str:
    """Choose a label of a model by its name; None for the only one. Raises UserError for an unknown or missing name."""
    if label is None and len(names) == 1:
        return names[0]
    if label is None or label not in names:
        problem = "several labels" if label is None else f"no label {label!r}"
        raise UserError(f"the model: {problem}; expected one of {', '.join(names)}; fix: --label NAME")
    return label


def mutagenesis_by_label(
    model: "Predictor | Path | str", sequence: str, overrides: Sequence[str] = ()
) -> dict[str, MutagenesisResult]:
    """Compute the results of `saturation_mutagenesis` for all labels of a model, by name."""
    from model.prediction.predictor import Predictor  # imports torch, which takes seconds

    predictor = model if isinstance(model, Predictor) else Predictor(model, overrides=overrides)
    (promoter,) = repaired([sequence], predictor.assay).to_pylist()
    insert = find_insert(promoter, predictor.assay)
    if not insert:
        raise UserError("the sequence: no insert; expected bases between the adapters, got none")
    values = predictor.predict_valid(pa.array([promoter, *list_mutants(promoter, predictor.assay)]))
    return arrange_by_label(promoter, values, predictor.labels, predictor.assay)


def find_insert(promoter: str, assay: Assay) -> str:
    """Return the bases between the adapters of a valid promoter."""
    return promoter[len(assay.left_adapter) : len(promoter) - len(assay.right_adapter)]


def list_mutants(promoter: str, assay: Assay) -> list[str]:
    """List a valid promoter with each single substitution in its insert, by position, then by base."""
    start = len(assay.left_adapter)
    return [
        f"{promoter[:place]}{base}{promoter[place + 1 :]}"
        for place, reference in enumerate(find_insert(promoter, assay), start)
        for base in BASES
        if base != reference
    ]


def count_mutants(promoter: str, assay: Assay) -> int:
    """Count the promoters of list_mutants."""
    insert = find_insert(promoter, assay)
    return 3 * len(insert) + insert.count("N")


def arrange_by_label(
    promoter: str, values: npt.NDArray[np.float32], labels: Sequence[str], assay: Assay
) -> dict[str, MutagenesisResult]:
    """Arrange the predictions of a promoter, then of list_mutants: (1 + substitutions,) or (..., labels).

    Raises UserError for predictions that are not finite.
    """
    if not np.isfinite(values).all():
        raise UserError(
            f"the model: predictions of {shorten(promoter, 200)!r} and its substitutions; expected finite numbers, got "
            "NaN or infinity; fix: predict on a CPU (CUDA_VISIBLE_DEVICES=) if fp16 overflows on the GPU, or train "
            "again with a lower finetune.learning_rate"
        )
    insert, columns = find_insert(promoter, assay), values.reshape(len(values), len(labels))
    return {name: replace(_arrange(insert, columns[:, place]), unit=assay.unit) for place, name in enumerate(labels)}


def _arrange(insert: str, values: npt.NDArray[np.float32]) -> MutagenesisResult:
    prediction, *others = values.tolist()
    result = MutagenesisResult(insert, prediction, np.full((len(insert), len(BASES)), prediction, np.float32))
    result.predictions[result.is_substitution] = others
    return result
