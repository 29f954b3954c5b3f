"""The label of the pretraining threshold, if there are several labels (dataset.cut_label)."""

from collections.abc import Sequence
from fractions import Fraction
from typing import Protocol

import duckdb

from pipeline.dataset.database import rows_of
from pipeline.errors import UserError

HIGHEST = "max"
"""The highest of the standardized labels of a row."""
SCALE = 1 << 40
"""Steps of a label in sums of integers: squares of 10^7 rows fit into 128 bits."""


class Label(Protocol):
    """A label: its name in `promoters`, and its column in view `input`."""

    @property
    def name(self) -> str:
        """Return the name."""

    @property
    def code(self) -> str:
        """Return the column."""


def check_cut_label(cut_label: str, names: Sequence[str]) -> None:
    """Raise UserError for a cut label that is none of the labels."""
    if cut_label not in ("", HIGHEST, *names):
        expected = ", ".join([*names, HIGHEST])
        raise UserError(f"dataset.cut_label={cut_label}: no such label; expected one of {expected}")


def steering_label(
    connection: duckdb.DuckDBPyConnection, labels: Sequence[Label], cut_label: str, valid_rows: str
) -> str:
    """Return the SQL of column expression for several labels: one of them, or the highest standardized one.

    valid_rows: SQL of a relation with the labels of the valid rows. Rows that are given as held out do not count for
    mean and standard deviation. Raises UserError for a chosen label without any value.
    """
    if cut_label != HIGHEST:
        chosen = next((label for label in labels if label.name == cut_label), labels[0])
        if rows_of(connection, f"select count(*) > 0 and count({chosen.code}) = 0 from {valid_rows}")[0][0]:
            raise UserError(
                f"label {chosen.name!r} has no values; expected values for the threshold of pretraining; fix: "
                f"dataset.cut_label={HIGHEST}, or the name of another label"
            )
        return chosen.code
    moments = [_moments(connection, label.code, valid_rows) for label in labels]
    scaled = (f"({label.code} - {mean!r}) / {sd!r}" for label, (mean, sd) in zip(labels, moments, strict=True))
    return f"greatest({', '.join(scaled)})"


def _moments(connection: duckdb.DuckDBPyConnection, label: str, valid_rows: str) -> tuple[float, float]:
    """Compute mean and standard deviation of a label in integers: equal for any order of the rows."""
    rows = f"{valid_rows} where coalesce(given_split, 'train') = 'train'"
    ((count, largest),) = rows_of(connection, f"select count({label}), max(abs({label})) from {rows}")
    if not count or not largest:
        return 0.0, 1.0
    scaled = f"round({label} / {largest!r} * {SCALE})::hugeint"
    ((total, squares),) = rows_of(
        connection, f"select sum({scaled})::varchar, sum({scaled} * {scaled})::varchar from {rows}"
    )
    mean = Fraction(int(total), count)
    variance = Fraction(int(squares), count) - mean**2
    unit = float(largest) / SCALE
    return float(mean) * unit, float(variance) ** 0.5 * unit or 1.0
