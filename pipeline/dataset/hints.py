"""Hints for the rejects of a dataset: settings that would accept them, tried on these rows before they are named."""

import csv
import math
from collections.abc import Sequence

import duckdb

from pipeline.config.schema import Assay
from pipeline.dataset.database import rows_of
from pipeline.dataset.input.cells import is_number
from pipeline.dataset.input.files import Input
from pipeline.dataset.input.repairs import TRIAL_ROWS, describe_repairs, find_repairs

LABEL_REASONS = ("no_number", "nan")


def hints_of_rejects(connection: duckdb.DuckDBPyConnection, source: Input, assay: Assay) -> dict[str, str]:
    """Find the hint for each reason of rejects, most frequent first; reasons without a hint are left out.

    source: the input of the dataset at this connection. The hints are tried on the first rows of each reason.
    """
    reasons = rows_of(
        connection, f"select reason, list(text)[:{TRIAL_ROWS}] from rejects group by reason order by count(*) desc"
    )
    hints = {reason: hint_of_reason(reason, texts, source, assay) for reason, texts in reasons}
    return {reason: hint for reason, hint in hints.items() if hint}


def hint_of_reason(reason: str, texts: Sequence[str], source: Input, assay: Assay) -> str:
    """Find the settings that would accept rejected rows. Returns an empty text if there are none.

    texts: the rejected rows, unchanged.
    """
    rows = [_cells_of_row(text or "", source) for text in texts]
    if reason == "expression out of the assay's range":
        return _label_range([label for _, label in rows], assay)
    return describe_repairs(find_repairs([sequence for sequence, _ in rows], assay))


def _cells_of_row(text: str, source: Input) -> tuple[str, str]:
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
    low, high = math.floor(min(values)), math.ceil(max(values))
    settings = [f"assay.min_expression={low}"] * (low < assay.min_expression)
    settings += [f"assay.max_expression={high}"] * (high > assay.max_expression)
    return " ".join(settings)
