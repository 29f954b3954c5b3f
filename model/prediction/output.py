"""Open the output of a prediction, and report the rows without a prediction beside it."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TextIO

from model.prediction.writers import PredictedRows, is_stream
from pipeline.io.atomic import new_file

COLUMNS = ("row", "problem", "bases", "first_wrong_base", "sequence")
MAX_ON_STREAM = 20
"""Rows without a prediction that are listed on standard error, where the output is no file."""


class ProblemReport:
    """Counts the rows, and lists those without a prediction in a file of lines.

    limit: list only so many, under a title, for a person to read.
    """

    def __init__(self, file: TextIO, limit: int | None = None) -> None:
        self.rows = 0
        self.counts: dict[str, int] = {}
        """Rows without a prediction, by reason."""
        self._file = file
        self._limit = limit
        self._listed = 0

    @property
    def rows_without_prediction(self) -> int:
        """Rows without a prediction, of all reasons."""
        return sum(self.counts.values())

    def add(self, rows: PredictedRows) -> None:
        """Count some rows; count and list those that have a problem."""
        self.rows += len(rows.prediction)
        if rows.problem.null_count == len(rows.problem):
            return
        problems = zip(rows.problem.to_pylist(), rows.sequence.to_pylist(), strict=True)
        for number, (problem, sequence) in enumerate(problems, rows.first + 1):
            if problem is not None:
                if not self.counts:
                    title = "" if self._limit is None else "rows without a prediction:\n"
                    self._file.write(title + "\t".join(COLUMNS) + "\n")
                self.counts[problem] = self.counts.get(problem, 0) + 1
                if self._limit is None or self._listed < self._limit:
                    self._list(number, problem, sequence)

    def finish(self) -> None:
        """Say how many rows were counted but not listed."""
        left = self.rows_without_prediction - self._listed
        if left:
            self._file.write(f"... and {left:,} more; an output file (-o NAME.tsv) gets all of them beside it\n")

    def _list(self, number: int, problem: str, sequence: str) -> None:
        self._listed += 1
        wrong = re.search("[^ACGTN]", sequence)
        place = f"{wrong[0]!r} at {wrong.start() + 1}" if wrong else ""
        self._file.write(f"{number}\t{problem}\t{len(sequence)}\t{place}\t{sequence}\n")


def problems_file(output: str) -> Path:
    """Return where the rows without a prediction are listed, beside an output file."""
    return Path(output).with_suffix(".problems.tsv")


@contextmanager
def open_output(output: str) -> Iterator[tuple[BinaryIO, ProblemReport]]:
    """Open the output and its problem report; files are written atomically, at the end of the block."""
    if output == "-":
        yield sys.stdout.buffer, ProblemReport(sys.stderr, MAX_ON_STREAM)
        sys.stdout.flush()
    elif is_stream(output):
        with Path(output).open("wb") as file:
            yield file, ProblemReport(sys.stderr, MAX_ON_STREAM)
    else:
        listed = problems_file(output)
        with new_file(listed) as temporary_list, temporary_list.open("w", encoding="utf-8") as lines:
            report = ProblemReport(lines)
            with new_file(Path(output)) as temporary, temporary.open("wb") as file:
                yield file, report
        if not report.counts:
            listed.unlink()
