"""Infer the delimiter of a table from its first lines, and give the row names of R a column."""

import re
import shlex
from collections import Counter

from pipeline.dataset.input.cells import DNA
from pipeline.errors import UserError

DELIMITERS = "\t;,"
"""In the order in which they are tried: a semicolon is used together with decimal commas."""
_QUOTED = re.compile(r'"[^"]*"')


def find_delimiter(file: str, lines: list[str]) -> str:
    """Find the delimiter that most lines hold; a space only if it parts a column that is not DNA from another.

    Raises UserError for columns aligned by several spaces.
    """
    for mark in DELIMITERS:
        if sum(mark in line for line in lines) > len(lines) / 2:
            return mark
    unquoted = [_QUOTED.sub("x", line.rstrip()) for line in lines]
    rows = [line.split() for line in unquoted]
    if sum(len(row) > 1 and not all(map(DNA.fullmatch, row)) for row in rows) <= len(lines) / 2:
        return "\t"
    if any("  " in line or line.startswith(" ") for line in unquoted):
        fix = f"awk -v OFS='\\t' '{{$1=$1}}1' {shlex.quote(file)} > rows.tsv"
        raise UserError(f"{file}: columns aligned by several spaces; expected one tab per column; fix: {fix}")
    return " "


def with_row_names(file: str, header: list[str], body: list[list[str]]) -> list[str]:
    """Add the missing name of a first column of row names, as R writes tables: one name fewer than columns.

    The added name is empty. Raises UserError for any other difference between the header and most rows.
    """
    rows = [row for row in body if any(row)]
    if not header or not rows or Counter(map(len, rows)).most_common(1)[0][0] == len(header):
        return header
    names = {row[0] for row in rows}
    are_names = len(names) == len(rows) and not any(len(name) > 3 and DNA.fullmatch(name) for name in names)
    has_last = any(row[-1] for row in rows)
    if are_names and has_last and all(len(row) == len(header) + 1 and '"' not in "".join(row) for row in rows):
        return ["", *header]
    lengths = ", ".join(str(length) for length, _ in Counter(map(len, rows)).most_common(3))
    problem = f"the header line has {len(header)} columns, the rows have {lengths}"
    raise UserError(f"{file}: {problem}; expected as many; fix: one name per column in the header line")
