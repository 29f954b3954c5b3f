"""Hints for the rejects of a dataset: settings that would accept them, tried on these rows before they are named."""

import csv
import math
from collections.abc import Sequence

import duckdb

from pipeline.config.schema import Assay
from pipeline.dataset.database import rows_of
from pipeline.dataset.input.cells import is_number
from pipeline.dataset.input.files import Input
from pipeline.dataset.input.repairs import ADD_ADAPTERS, TRIAL_ROWS, describe_repairs, find_repairs, longest_insert
from pipeline.dataset.input.view import define_rules

_SELECT_REASONS = f"select reason, reason = reason_text('label_range'), list(text)[:{TRIAL_ROWS}] from rejects"


def hints_of_rejects(connection: duckdb.DuckDBPyConnection, source: Input, assay: Assay) -> dict[str, str]:
    """Find the hint for each reason of rejects, most frequent first; reasons without a hint are omitted.

    source: the input of the dataset at this connection. The hints are tried on the first rows of each reason.
    """
    define_rules(connection, assay)  # reason_text
    reasons = rows_of(connection, f"{_SELECT_REASONS} group by reason order by count(*) desc")
    hints = {reason: _find_hint(texts, is_range, source, assay) for reason, is_range, texts in reasons}
    return {reason: hint for reason, hint in hints.items() if hint}


def _find_hint(texts: Sequence[str], is_range: bool, source: Input, assay: Assay) -> str:
    """Find the settings that would accept rejected rows. Returns an empty text if there are none.

    texts: the rejected rows, unchanged. is_range: whether their labels are out of the assay's range.
    """
    rows = [cells_of_row(text or "", source) for text in texts]
    if is_range:
        return _label_range([label for _, label in rows], assay)
    return describe_repairs(find_repairs([sequence for sequence, _ in rows], assay))


def fix_of_all_rows(connection: duckdb.DuckDBPyConnection, reason: str, source: Input, assay: Assay) -> str:
    """Find the settings that would accept the rows of a build without any valid row; an empty text if there are none.

    Rows without adapters are bare inserts of this assay, or rows of another one: only the user knows which.
    """
    ((_, is_range, texts),) = rows_of(connection, f"{_SELECT_REASONS} where reason = ? group by reason", [reason])
    sequences = [cells_of_row(text or "", source)[0] for text in texts]
    if longest := longest_insert(sequences, assay):
        return f"assay.max_insert={longest}, the longest of these inserts, in place of {assay.max_insert}"
    repairs = find_repairs(sequences, assay)
    if ADD_ADAPTERS not in repairs:
        return _find_hint(texts, is_range, source, assay)
    other = assay.model_copy(update={"left_adapter": "", "right_adapter": "", "flank": 0})
    limits = _limits_of_rows(connection, assay)
    settings = ["assay.left_adapter=", "assay.right_adapter=", "assay.flank=0", *find_repairs(sequences, other)]
    return (
        f"for bare inserts of this assay, {' '.join([*repairs, *limits])}; "
        f"for another assay, {' '.join([*settings, *limits])}"
    )


def _limits_of_rows(connection: duckdb.DuckDBPyConnection, assay: Assay) -> list[str]:
    """List the limits of the assay that all rows of view `input` need: the longest insert, and the range of labels."""
    ((longest, low, high),) = rows_of(
        connection,
        "select max(strlen(sequence)), min(label), max(label) from ("
        "select sequence, case when isfinite(try_cast(expression as double)) then expression::double end as label "
        "from input)",
    )
    settings = [f"assay.max_insert={longest}"] * (longest > assay.max_insert)
    return settings + ([] if low is None else _range_settings(low, high, assay))


def cells_of_row(text: str, source: Input) -> tuple[str, str]:
    """Read sequence and label from the text of a reject."""
    layout = source.layout
    if layout is None:
        sequence, _, label = text.partition("\t")
        return sequence, label
    if layout.kind == "fasta":
        return "".join(line for line in text.split("\n") if not line.startswith(">")), ""
    cells = next(csv.reader([text], delimiter=layout.delimiter), []) if layout.quoted else text.split(layout.delimiter)
    padded = ["", *cells, *[""] * layout.columns]
    return padded[layout.sequence_field], padded[layout.expression_field].strip()


def _label_range(labels: list[str], assay: Assay) -> str:
    """Name the range that would accept these labels. Returns an empty text if a label is not a number."""
    values = [float(label) for label in labels if is_number(label) and math.isfinite(float(label))]
    if not values:
        return ""
    return " ".join(_range_settings(min(values), max(values), assay))


def _range_settings(low: float, high: float, assay: Assay) -> list[str]:
    settings = [f"assay.min_expression={math.floor(low)}"] * (low < assay.min_expression)
    return settings + [f"assay.max_expression={math.ceil(high)}"] * (high > assay.max_expression)
