"""Measure the cells of a table's first rows: numbers, sequences, missing labels."""

import re
from collections.abc import Callable
from dataclasses import dataclass

HEAD_LINES = 1000
"""Lines or rows from which a layout or the types of columns are inferred."""
MISSING_LABELS = {"", "nan", "na", "n/a", "null", "none", "."}
SHORT_BASES = 20
"""Shorter sequences are barcodes, primers or alleles, not promoters."""
DNA = re.compile(r"[ACGTUNRYSWKMBDHV]+", re.IGNORECASE)

_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")
_NO_NUMBER = re.compile(r"true|false|\d{4}-\d\d-\d\d.*|[\[{<].*", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class Table:
    """The first rows of a table as text.

    header: the column names as written; empty without a header line. number_fields: columns of a number type, even if
    these rows hold no number.
    """

    file: str
    header: list[str]
    rows: list[list[str]]
    width: int
    number_fields: frozenset[int] = frozenset()

    @property
    def fields(self) -> range:
        """The numbers of the columns, from 1."""
        return range(1, self.width + 1)

    def name(self, field: int) -> str:
        """Return the name of a column as written; an empty text if it has none, and for column 0."""
        return self.header[field - 1] if 0 < field <= len(self.header) else ""

    def title(self, field: int) -> str:
        """Name a column in a message: by its name in quotes, or by its number."""
        return repr(self.name(field)) if self.name(field) else f"column {field}"

    def option(self, field: int) -> str:
        """Name a column in an option: by its name if only this column has it, else by its number."""
        name = self.name(field)
        folded = [other.casefold() for other in self.header]
        return name if name and not name.isdecimal() and folded.count(name.casefold()) == 1 else str(field)

    def cells(self, field: int) -> list[str]:
        """List the cells of a column; rows that are too short have none."""
        return [row[field - 1] for row in self.rows if len(row) >= field]

    def mean(self, field: int, measure: Callable[[str], int]) -> float:
        """Average a number, or a condition, over the cells of a column; 0 if no row has it."""
        cells = self.cells(field)
        return sum(map(measure, cells)) / len(cells) if cells else 0.0

    def example(self, field: int) -> str:
        """Quote the first cell of a column that is not missing."""
        return repr(next((cell for cell in self.cells(field) if not is_missing(cell)), "")[:40])


def is_number(cell: str) -> bool:
    """Return whether a cell holds a number; NaN is not one, nor is 1_0, which Python would read as ten."""
    try:
        return float(cell) == float(cell) and "_" not in cell
    except ValueError:
        return False


def is_decimal_comma(cell: str) -> bool:
    """Return whether a cell holds a number with a decimal comma, such as 12,5."""
    return _DECIMAL_COMMA.fullmatch(cell) is not None


def is_no_number(cell: str) -> bool:
    """Return whether a cell holds a value of another type: true or false, a date, a list or a struct."""
    return _NO_NUMBER.fullmatch(cell) is not None


def is_missing(cell: str) -> bool:
    """Return whether a cell holds no value."""
    return cell.strip().lower() in MISSING_LABELS


def is_dna(cell: str) -> bool:
    """Return whether a cell holds bases of DNA or RNA only, with or without spaces."""
    return DNA.fullmatch("".join(cell.split())) is not None


def is_sequence(cell: str) -> bool:
    """Return whether a cell holds DNA, with or without spaces, and not a short word of the same letters."""
    return is_dna(cell) and bases(cell) > 3


def is_long_sequence(cell: str) -> bool:
    """Return whether a cell holds DNA too long to be a word."""
    return len(cell) > 9 and is_sequence(cell)


def is_short_dna(cell: str) -> bool:
    """Return whether a cell holds DNA that is too short for a promoter."""
    return is_dna(cell) and bases(cell) < SHORT_BASES


def bases(cell: str) -> int:
    """Count the characters of a cell that are not white space."""
    return len("".join(cell.split()))


def is_row_index(cells: list[str]) -> bool:
    """Return whether at least five cells count the rows: whole numbers, each one more than the cell before."""
    if len(cells) < 5 or not all(cell.isdecimal() for cell in cells):
        return False
    first = int(cells[0])
    return all(int(cell) == first + place for place, cell in enumerate(cells))
