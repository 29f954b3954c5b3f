"""Count the rows around the pretraining threshold: those it is taken from, those used, and those held out."""

from dataclasses import dataclass

import duckdb

from pipeline.dataset.database import DatasetInfo, rows_of

COUNTS = """
select
    count(expression) filter (is_candidate),
    count(*) filter (is_candidate and expression >= cut),
    count(*) filter (expression >= cut)
from (select expression, id >= ? as is_candidate, (select cut from dataset) as cut from promoters)
"""


@dataclass(frozen=True)
class ThresholdRows:
    """Counts of rows around the pretraining threshold.

    candidates: labelled rows from which the threshold is taken, all of them or the training rows of a given split. top:
    candidates at or above it. above: all rows at or above it. used: rows of pretraining. valid: of these, rows on which
    pretraining is validated. requested: dataset.top_fraction. is_given: whether the input gives the split.
    """

    cut: float
    candidates: int
    top: int
    above: int
    used: int
    valid: int
    requested: float
    is_given: bool

    @property
    def held_out(self) -> int:
        """Return the number of rows at or above the threshold that pretraining does not use."""
        return self.above - self.used

    @property
    def extra_ties(self) -> int:
        """Return the number of candidates that are in pretraining only because their label equals the threshold."""
        wanted = min(int(self.requested * self.candidates) + 1, self.candidates)
        return self.top - wanted


def count_threshold_rows(connection: duckdb.DuckDBPyConnection, info: DatasetInfo) -> ThresholdRows | None:
    """Count the rows around the threshold of an open dataset. Returns None for a dataset without labels."""
    if info.cut is None:
        return None
    is_given = info.split == "column"
    first = info.finetune_test_rows + info.finetune_valid_rows if is_given else 0
    ((candidates, top, above),) = rows_of(connection, COUNTS, [first])
    return ThresholdRows(
        info.cut, candidates, top, above, info.pretrain_rows, info.pretrain_valid_rows, info.top_fraction,
        is_given,
    )  # fmt: skip
