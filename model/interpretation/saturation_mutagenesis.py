"""In-silico saturation mutagenesis: what every single substitution in an insert does to the predicted expression."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.errors import UserError

if TYPE_CHECKING:
    from model.prediction.predictor import Predictor

BASES = "ACGT"


@dataclass(frozen=True)
class Mutagenesis:
    """An insert of L bases, the prediction for its promoter, and those for its substitutions: (L, 4) float32 in the
    order of BASES, the promoter's own prediction where the base is its own."""

    insert: str
    prediction: float
    predictions: npt.NDArray[np.float32]

    @property
    def effects(self) -> npt.NDArray[np.float32]:
        """What each substitution adds to expression: (L, 4), 0 where the base stays."""
        return self.predictions - np.float32(self.prediction)

    @property
    def substituted(self) -> npt.NDArray[np.bool_]:
        """Where the base is another one: (L, 4); three a position, four where the insert has an N."""
        return np.array([[base != here for base in BASES] for here in self.insert])

    @property
    def importance(self) -> npt.NDArray[np.float32]:
        """What expression loses when a base is substituted, mean over its substitutions: (L,); below 0 it gains."""
        return np.asarray(-self.effects.sum(1) / self.substituted.sum(1), np.float32)

    def table(self) -> pa.Table:
        """A row a substitution: position in the insert (from 1), reference, base, prediction, effect."""
        place, base = np.nonzero(self.substituted)
        return pa.table(
            {
                "position": pa.array(place + 1, pa.int32()),
                "reference": [self.insert[i] for i in place],
                "base": [BASES[i] for i in base],
                "prediction": self.predictions[place, base],
                "effect": self.effects[place, base],
            }
        )


def mutate(predictor: "Predictor", promoter: str) -> Mutagenesis:
    """Predict a promoter, adapters included, and all substitutions in its insert, in one call of the model.

    Raises UserError for what is no promoter of the model's assay.
    """
    (repaired,) = predictor.repaired([promoter]).to_pylist()
    left, right = predictor.assay.left_adapter, predictor.assay.right_adapter
    insert = repaired[len(left) : len(repaired) - len(right)]
    if not insert:
        raise UserError("the promoter has no insert: nothing stands between its adapters")
    places = [(place, base) for place, here in enumerate(insert) for base in BASES if base != here]
    mutants = [f"{left}{insert[:place]}{base}{insert[place + 1 :]}{right}" for place, base in places]
    own, *others = predictor.predict_usable(pa.array([repaired, *mutants])).tolist()
    predictions = np.full((len(insert), len(BASES)), own, np.float32)
    for (place, base), value in zip(places, others, strict=True):
        predictions[place, BASES.index(base)] = value
    return Mutagenesis(insert, own, predictions)
