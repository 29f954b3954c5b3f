"""Open the output of a prediction, and report the rows without a prediction beside it."""

import re
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import BinaryIO, TextIO

from model.prediction.writers import PredictedRows, is_stream
from pipeline.io.atomic import new_file

HEADER = "row\tproblem\tbases\tfirst_wrong_base\tsequence\n"
MAX_ON_STREAM = 20
"""Rows without a prediction that are listed on standard error, where the output is no file."""


class ProblemReport:
    """Counts rows, and lists those without a prediction. limit: rows to list, with a title for a reader."""

    def __init__(self, file: TextIO, limit: int | None = None) -> None:
        self.rows = 0
        self.counts: Counter[str] = Counter()
        """Rows without a prediction, by reason."""
        self._file = file
        self._limit = limit

    def add(self, rows: PredictedRows) -> None:
        """Count rows; count and list those with a problem."""
        self.rows += len(rows)
        if rows.table["problem"].null_count == len(rows):
            return
        problems = zip(rows.table["problem"].to_pylist(), rows.table["sequence"].to_pylist(), strict=True)
        for number, (problem, sequence) in enumerate(problems, rows.first + 1):
            if problem is None:
                continue
            if not self.counts:
                self._file.write(HEADER if self._limit is None else f"rows without a prediction:\n{HEADER}")
            self.counts[problem] += 1
            if self._limit is None or self.counts.total() <= self._limit:
                wrong = re.search("[^ACGTN]", sequence)
                place = f"{wrong[0]!r} at {wrong.start() + 1}" if wrong else ""
                self._file.write(f"{number}\t{problem}\t{len(sequence)}\t{place}\t{sequence}\n")

    def finish(self) -> None:
        """Report how many rows were counted but not listed."""
        if self._limit is not None and (hidden := self.counts.total() - self._limit) > 0:
            self._file.write(f"... and {hidden:,} more; an output file (-o NAME.tsv) gets all of them beside it\n")


def problems_file(output: str) -> Path:
    """Return the list of rows without a prediction, beside an output file."""
    return Path(output).with_suffix(".problems.tsv")


@contextmanager
def open_output(output: str) -> Iterator[tuple[BinaryIO, ProblemReport]]:
    """Open the output and its problem report; files are written atomically, at the end of the block."""
    if is_stream(output):
        with nullcontext(sys.stdout.buffer) if output == "-" else Path(output).open("wb") as file:
            yield file, ProblemReport(sys.stderr, MAX_ON_STREAM)
            file.flush()
        return
    listed = problems_file(output)
    with new_file(listed) as temporary_list, temporary_list.open("w", encoding="utf-8") as lines:
        report = ProblemReport(lines)
        with new_file(Path(output)) as temporary, temporary.open("wb") as file:
            yield file, report
    if not report.counts:
        listed.unlink()
