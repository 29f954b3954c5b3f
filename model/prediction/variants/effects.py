"""Predicted effects of variants of sequences in memory.

from promoter_bert import variant_effects
result = variant_effects("runs/demo", ["TGCATTTTTTTCACATCACGTGGTTACGGCTGTT"], [(19, "C", "T")])
result.effect
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from model.prediction.variants.alleles import Variant, VariantError, apply_variants
from model.prediction.variants.pairs import check_pairs
from pipeline.dataset.input.view import define_rules
from pipeline.errors import UserError

if TYPE_CHECKING:
    from model.prediction.predictor import Predictor

Alternative = str | tuple[int, str, str]
"""A whole sequence; or position from 1 in the reference sequence as given, reference allele, alternative allele."""


@dataclass(frozen=True)
class VariantEffects:
    """Predictions of variants, on the scale of the training labels: float32 (rows,), or (rows, labels) for several.

    Both are NaN for an invalid row. problems: why a row is invalid, or None.
    """

    reference_prediction: npt.NDArray[np.float32]
    alternative_prediction: npt.NDArray[np.float32]
    problems: list[str | None]

    @property
    def effect(self) -> npt.NDArray[np.float32]:
        """Return the prediction of the alternative minus that of the reference: float32, as the predictions."""
        return self.alternative_prediction - self.reference_prediction


def variant_effects(
    model: "Predictor | Path | str", references: Sequence[str], alternatives: Sequence[Alternative]
) -> VariantEffects:
    """Predict the effects of variants, one per row.

    model: a Predictor, a model folder or a run directory. references: promoters, adapters included. alternatives: the
    same promoters with the variant, or (position, reference allele, alternative allele). An allele "" has no bases: the
    reference of an insertion before the position, the alternative of a deletion.

    For valid rows, the predictions are those of Predictor.predict(references) and Predictor.predict(alternatives), bit
    for bit. Raises UserError for lists of unequal length.
    """
    from model.prediction.predictor import Predictor  # imports torch, which takes seconds

    predictor = model if isinstance(model, Predictor) else Predictor(model)
    if isinstance(references, str) or isinstance(alternatives, str) or len(references) != len(alternatives):
        raise UserError("expected two lists of equal length: references and alternatives")
    built = [_alternative(*row) for row in zip(references, alternatives, strict=True)]
    with duckdb.connect() as connection:
        define_rules(connection, predictor.assay)
        pairs = check_pairs(connection, references, built)
    valid = np.array([problem is None for problem in pairs.problems], bool)
    reference, alternative = (
        _scatter(predictor.predict_valid(sequences.filter(pa.array(valid))), valid)
        for sequences in (pairs.references, pairs.alternatives)
    )
    problems = [
        f"{problem} ({place})" if problem and place else problem
        for problem, place in zip(pairs.problems, pairs.places, strict=True)
    ]
    return VariantEffects(reference, alternative, problems)


def _alternative(reference: str, alternative: Alternative) -> str | VariantError:
    """Return the alternative sequence, or the error if the variant cannot be applied."""
    if isinstance(alternative, str):
        return alternative
    position, *alleles = alternative
    try:
        return apply_variants(reference, [Variant(position - 1, *alleles)])
    except VariantError as error:
        return error


def _scatter(values: npt.NDArray[np.float32], valid: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """Put the values of valid rows (valid rows, ...) at their places among all rows; NaN elsewhere."""
    rows = np.full((len(valid), *values.shape[1:]), np.nan, np.float32)
    rows[valid] = values
    return rows
