"""Writers of predictions in input order: TSV, CSV, Parquet, or the JSON of the DREAM Challenge's leaderboard.

Rows without a prediction are also listed in a problems file beside the output, or on standard error for a stream.
"""

import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import chain
from pathlib import Path
from typing import BinaryIO, TextIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from model.artifacts.json_files import read_json
from model.prediction.inputs import Part
from model.prediction.row_writers import RowWriter, as_text, text_cells, write_csv, write_parquet, write_tsv
from model.prediction.validate import describe_wrong_base
from pipeline.dataset.input.repairs import TRIAL_ROWS
from pipeline.errors import UserError
from pipeline.io.atomic import new_file
from pipeline.runtime.text import shorten

PROBLEM_HEADER = "row\tproblem\tbases\tfirst_wrong_base\tsequence\n"
MAX_LISTED_ROWS = 20
"""Most rows without a prediction that are listed on standard error, if the output is a stream."""


LINE_BREAKERS = {"name": r"\s", "sequence": r"[\t\n\r]"}
"""Characters of a name or an invalid sequence that would break a line: each is written as a space."""

Writer = Callable[[BinaryIO, Iterator[Part]], None]
"""Writes parts with predictions to an open binary file as they arrive."""


def write_lines(file: BinaryIO, parts: Iterator[Part]) -> None:
    """Write `sequence<TAB>prediction` lines without a header line; names, if any, are the first column.

    With several labels there is one prediction per label, in their order.
    """
    for part in parts:
        table = part.table
        for name, pattern in LINE_BREAKERS.items():
            if name in table.column_names:
                text = pc.replace_substring_regex(table[name], pattern, " ")
                table = table.set_column(table.column_names.index(name), name, text)
        file.write("".join("\t".join(cells) + "\n" for cells in text_cells(table, part.predictions)).encode())
        file.flush()  # so that the reader of a pipe gets each part at once


def write_outputs(write: RowWriter, file: BinaryIO, parts: Iterator[Part]) -> None:
    """Write the columns of `Part.output` with a writer of tables."""
    if (first := next(parts, None)) is not None:
        write(file, (part.output for part in chain([first], parts)), first.predictions)


write_table: Writer = partial(write_outputs, write_tsv)
"""Writes the columns of `Part.output` as TSV with a header line."""
WRITERS: dict[str, Writer] = {
    ".tsv": write_lines,
    ".txt": write_lines,
    ".csv": partial(write_outputs, write_csv),
    ".parquet": partial(write_outputs, write_parquet),
}
"""Suffix of the output -> its writer."""


def is_stream(output: str) -> bool:
    """Return whether the output is standard output, a device or a pipe: written at once, and never resumed."""
    path = Path(output)
    return output == "-" or (path.exists() and not path.is_file() and not path.is_dir())


class LeaderboardInputError(UserError):
    """Input without a row that the leaderboard requires, so that the same command would fail again."""


def leaderboard_writer(sample: Path) -> Writer:
    """Return a writer of JSON: row number (from 0, as text) -> prediction.

    sample: the challenge's sample_submission.json, whose keys are the rows to write. Raises UserError for any other
    file. The writer raises UserError for a prediction that is not finite. It raises LeaderboardInputError for a row of
    the sample that is missing or has no prediction.
    """
    values = read_json(sample)
    if not isinstance(values, dict) or not values or not all(key.isdecimal() for key in values):
        raise UserError(
            f"{sample}: expected a JSON object whose keys are row numbers; fix: --leaderboard sample_submission.json"
        )
    required = set(map(int, values))

    def write(file: BinaryIO, parts: Iterator[Part]) -> None:
        texts, end = [], 0
        for part in parts:
            end = part.first + len(part)
            for row in sorted(required.intersection(range(part.first, end))):
                (cells,) = part.table.slice(row - part.first, 1).to_pylist()
                texts.append(f'"{row}": {_leaderboard_value(row, **cells)}')
        if len(texts) < len(required):
            missing = min(row for row in required if row >= end)
            raise LeaderboardInputError(
                f"the leaderboard requires row {missing:,} (from 0), but there are {end:,} rows; fix: predict the "
                "challenge's complete test_sequences.txt"
            )
        file.write(f"{{{', '.join(texts)}}}\n".encode())

    return write


def _leaderboard_value(row: int, sequence: str, prediction: float | None, problem: str | None) -> str:
    which = f"row {row:,} (from 0), which the leaderboard requires,"
    if problem is not None:
        raise LeaderboardInputError(
            f"{which} has no prediction: {problem}: {shorten(sequence, 200)!r}; fix: predict the challenge's "
            "test_sequences.txt unchanged"
        )
    if prediction is None or not np.isfinite(prediction):
        raise UserError(
            f"{which} has a prediction that is not a finite number: {shorten(sequence, 200)!r}. It may have "
            "overflowed fp16 on a GPU; fix: predict on a CPU (CUDA_VISIBLE_DEVICES=)"
        )
    return as_text(prediction)


def check_leaderboard_rows(sample: Path, parts: Iterator[Part]) -> None:
    """Raise LeaderboardInputError for a row of the sample that is missing or invalid, before any row is predicted."""
    write = leaderboard_writer(sample)
    with Path(os.devnull).open("wb") as nowhere:
        write(nowhere, (part.with_predictions(np.zeros(len(part.valid_sequences), np.float32)) for part in parts))


class ProblemReport:
    """Report of rows without a prediction: it counts all rows, and lists the rows with a problem.

    file: None for no list. limit: maximum number of listed rows, which get a title; None: all rows are listed, without
    a title.
    """

    def __init__(self, file: TextIO | None = None, limit: int | None = None) -> None:
        self.rows = 0
        self.counts: Counter[str] = Counter()
        """Reason -> number of rows without a prediction."""
        self.first = ""
        """First row without a prediction, and its first wrong base if it has one, such as row 3, '*' at 170."""
        self.examples: dict[str, list[str]] = {}
        """Reason -> the first sequences without a prediction, on which repairs are tried."""
        self.lengths = (0, 0)
        """Shortest and longest valid promoter after repairs, in bases, adapters included; (0, 0) for none."""
        self._file = file
        self._limit = limit

    def add(self, part: Part) -> None:
        """Count the rows of a part; count and list those with a problem."""
        self.rows += len(part)
        self._add_lengths(part.valid_sequences)
        if part.table["problem"].null_count == len(part):
            return
        places = part.table["place"].to_pylist() if "place" in part.table.column_names else [""] * len(part)
        columns = (part.table[name].to_pylist() for name in ("problem", "sequence", "repaired"))
        for number, (problem, sequence, repaired, place) in enumerate(
            zip(*columns, places, strict=True), part.first + 1
        ):
            if problem is None:
                continue
            place = place or describe_wrong_base(sequence, repaired or "")
            if not self.counts:
                self.first = f"row {number:,}{f', {place}' if place else ''}"
            if not self.counts and self._file is not None:
                title = "" if self._limit is None else "rows without a prediction:\n"
                self._file.write(title + PROBLEM_HEADER)
            self.counts[problem] += 1
            if self.counts[problem] <= TRIAL_ROWS:
                self.examples.setdefault(problem, []).append(sequence)
            if self._file is not None and (self._limit is None or self.counts.total() <= self._limit):
                text = re.sub(LINE_BREAKERS["sequence"], " ", sequence)
                self._file.write(f"{number}\t{problem}\t{len(sequence)}\t{place}\t{text}\n")

    def _add_lengths(self, sequences: pa.Array) -> None:
        bounds = pc.min_max(pc.binary_length(sequences)).as_py()
        if bounds["max"] is not None:
            shortest = min(bounds["min"], self.lengths[0] or bounds["min"])
            self.lengths = shortest, max(bounds["max"], self.lengths[1])

    def frequent_examples(self) -> dict[str, list[str]]:
        """Return the examples by reason, the most frequent reason first."""
        return {problem: self.examples[problem] for problem, _ in self.counts.most_common()}

    def finish(self) -> None:
        """Write how many rows were counted but not listed."""
        if self._file is not None and self._limit is not None and (hidden := self.counts.total() - self._limit) > 0:
            self._file.write(
                f"... and {hidden:,} more; fix: -o NAME.tsv, which lists all of them in NAME.problems.tsv\n"
            )


def problems_file(output: str) -> Path:
    """Return the path of the list of rows without a prediction, beside an output file."""
    return Path(output).with_suffix(".problems.tsv")


@contextmanager
def open_output(output: str) -> Iterator[tuple[BinaryIO, ProblemReport]]:
    """Open the output and its problem report; files appear atomically at the end of the block."""
    if is_stream(output):
        with nullcontext(sys.stdout.buffer) if output == "-" else Path(output).open("wb") as file:
            yield file, ProblemReport(sys.stderr, MAX_LISTED_ROWS)
            file.flush()
        return
    with open_report(output) as report, new_file(Path(output)) as temporary, temporary.open("wb") as file:
        yield file, report


@contextmanager
def open_report(output: str) -> Iterator[ProblemReport]:
    """Open the problem report of an output file; its list appears atomically at the end, if it has rows."""
    listed = problems_file(output)
    with new_file(listed) as temporary_list, temporary_list.open("w", encoding="utf-8") as lines:
        report = ProblemReport(lines)
        yield report
    if not report.counts:
        listed.unlink()
