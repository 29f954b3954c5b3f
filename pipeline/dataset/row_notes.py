"""Notes on the rows of a new dataset: an example per reason of rejects, unusual lengths, and columns of numbers."""

import re
from collections import Counter
from dataclasses import dataclass, field

import duckdb

from pipeline.config.schema import Assay
from pipeline.dataset.database import rows_of
from pipeline.dataset.hints import cells_of_row
from pipeline.dataset.input.cells import is_number
from pipeline.dataset.input.files import Input
from pipeline.dataset.input.repairs import TRIAL_ROWS
from pipeline.dataset.input.view import define_rules
from pipeline.dataset.rows.columns import name_columns

FEW_LENGTHS = 0.05
"""Largest share of inserts of unusual length that may be errors; more of them are the design of the library."""
FEW_ROWS = 0.01
"""Largest share of rows whose label may be a code for a missing value."""
LETTER_CODES = ("white_space", "lower_case", "uracil", "iupac", "letters")
"""Reasons of rejects with a wrong character in the sequence."""


@dataclass(frozen=True)
class RowNotes:
    """Notes on the rows of a dataset.

    median_insert: in bases. short_inserts, long_inserts: inserts shorter than half the median, and longer than twice
    the median; 0 if there are more than FEW_LENGTHS of them. examples: reason -> place of the first reject, and its
    first wrong character. codes: reason -> a label out of range that several rows have, and their number. numbers:
    columns of numbers that are kept, and not taken as labels. out_of_range: reason -> rejects whose label is below the
    range of the assay, and above it, among the first TRIAL_ROWS.
    """

    median_insert: int = 0
    short_inserts: int = 0
    long_inserts: int = 0
    examples: dict[str, str] = field(default_factory=dict)
    codes: dict[str, tuple[float, int]] = field(default_factory=dict)
    numbers: list[str] = field(default_factory=list)
    out_of_range: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def shortest_usual(self) -> int:
        """Return the length from which inserts are not short: half the median, rounded up."""
        return -(-self.median_insert // 2)


def collect_notes(connection: duckdb.DuckDBPyConnection, source: Input, assay: Assay) -> RowNotes:
    """Collect the notes of an open dataset. source: its input."""
    define_rules(connection, assay)  # reason_text
    median, short, long = _count_lengths(connection, len(assay.left_adapter) + len(assay.right_adapter))
    examples = _find_examples(connection, source)
    labels = _read_rejected_labels(connection, source)
    codes, numbers = _find_codes(connection, labels), _find_numbers(connection, source)
    out_of_range = {
        reason: (
            sum(value < assay.min_expression for value in values),
            sum(value > assay.max_expression for value in values),
        )
        for reason, (_, values) in labels.items()
    }
    return RowNotes(median, short, long, examples, codes, numbers, out_of_range)


def _count_lengths(connection: duckdb.DuckDBPyConnection, adapters: int) -> tuple[int, int, int]:
    """Return the median length of the inserts, and the numbers of short and of long ones."""
    counts = rows_of(
        connection, "select strlen(sequence) - ?, count(*) from promoters group by 1 order by 1", [adapters]
    )
    rows = sum(count for _, count in counts)
    median, below = 0, 0
    for length, count in counts:
        below += count
        if 2 * below >= rows:
            median = length
            break
    short = sum(count for length, count in counts if 2 * length < median)
    long = sum(count for length, count in counts if length > 2 * median)
    most = FEW_LENGTHS * rows
    return median, short if short <= most else 0, long if long <= most else 0


def _find_examples(connection: duckdb.DuckDBPyConnection, source: Input) -> dict[str, str]:
    """Find the first reject of each reason: FILE:LINE, after its first wrong character, if it has one."""
    wrong = {text for (text,) in rows_of(connection, "select reason_text(unnest(?))", [list(LETTER_CODES)])}
    # The table is in the order of the files; sorting the texts of millions of rejects would take long.
    first = "rowid in (select min(rowid) from rejects group by reason)"
    examples = {}
    for reason, file, line, text in rows_of(connection, f"select reason, file, line, text from rejects where {first}"):
        sequence = cells_of_row(text or "", source)[0] if reason in wrong else ""
        match = re.search("[^ACGTN]", sequence)
        letter = f"{match[0]!r} at {match.start() + 1} in " if match else ""
        examples[reason] = f"{letter}{file}:{line}"
    return examples


def _read_rejected_labels(connection: duckdb.DuckDBPyConnection, source: Input) -> dict[str, tuple[int, list[float]]]:
    """Read the labels out of the assay's range: reason -> number of rejects, and the labels of the first ones."""
    rejects = rows_of(
        connection,
        f"select reason, count(*), list(text)[:{TRIAL_ROWS}] from rejects where reason = reason_text('label_range') "
        "group by reason",
    )
    labels = {
        reason: (count, [cells_of_row(text or "", source)[1] for text in texts]) for reason, count, texts in rejects
    }
    return {reason: (count, [float(x) for x in cells if is_number(x)]) for reason, (count, cells) in labels.items()}


def _find_codes(
    connection: duckdb.DuckDBPyConnection, labels: dict[str, tuple[int, list[float]]]
) -> dict[str, tuple[float, int]]:
    """Find a label out of the assay's range that several rows share, if there are few such rows."""
    ((rows,),) = rows_of(connection, "select input_rows from dataset")
    most = {
        reason: Counter(values).most_common(1)[0]
        for reason, (count, values) in labels.items()
        if values and count <= FEW_ROWS * rows
    }
    return {reason: (value, times) for reason, (value, times) in most.items() if times > 1}


def _find_numbers(connection: duckdb.DuckDBPyConnection, source: Input) -> list[str]:
    """List the kept columns of numbers; empty without labels, and for several labels, which the user named."""
    if not source.labelled or len(source.label_fields) > 1 or not source.column_names[1]:
        return []
    types = dict(
        rows_of(connection, "select column_name, data_type from duckdb_columns() where table_name = 'promoters'")
    )
    numeric = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "FLOAT", "DOUBLE", "DECIMAL")
    kept = [column.name for column in name_columns(source).kept]
    return [name for name in kept if types.get(name, "").removeprefix("U").startswith(numeric)]
