"""Predicted rows, in the order of the input -> a file: each format is a function that takes them and writes them."""

import csv
import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import BinaryIO, TextIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import UserError
from pipeline.shards.writer import in_parts

GROUP_ROWS = 65_536
"""Rows of a row group in Parquet."""
PROBLEM_COLUMNS = ("row", "problem", "bases", "first_wrong_base", "sequence")


@dataclass(frozen=True)
class Rows:
    """Some rows of the output. first: number of the first one, from 0; sequence: as it came; prediction: (rows,),
    NaN where problem is not null; name: None where no names were asked for."""

    first: int
    sequence: pa.ChunkedArray
    prediction: npt.NDArray[np.float32]
    problem: pa.ChunkedArray
    name: pa.ChunkedArray | None = None

    @property
    def texts(self) -> dict[str, pa.ChunkedArray]:
        """The columns before the prediction: the name, if it was asked for, and the sequence."""
        return {"sequence": self.sequence} if self.name is None else {"name": self.name, "sequence": self.sequence}

    def cells(self) -> Iterator[tuple[str, ...]]:
        """Each row as text: nan where there is no prediction."""
        texts = (column.to_pylist() for column in self.texts.values())
        return zip(*texts, map(as_text, self.prediction.tolist()), strict=True)


def as_text(value: float) -> str:
    """Format a prediction for text output with six significant digits.

    float32 holds seven. The last of them, and sometimes the one before, depends on the processor, the number of threads
    and the other rows of the batch, so more digits would mean nothing. Parquet keeps the float32 as it is.
    """
    return f"{value:.6g}"


Format = Callable[[BinaryIO, Iterator[Rows]], None]
"""Writes all rows to an open file as they come."""


def write_lines(file: BinaryIO, rows: Iterator[Rows]) -> None:
    """`sequence<TAB>prediction`, behind the name and a tab if there are names; no header; nan where there is none."""
    for part in rows:
        if part.name is not None:  # a tab or line end in it would be taken for one of this file
            part = replace(part, name=pc.replace_substring_regex(part.name, r"\s", " "))
        file.write("".join("\t".join(cells) + "\n" for cells in part.cells()).encode())
        file.flush()  # who reads a pipe is not kept waiting


def write_csv(file: BinaryIO, rows: Iterator[Rows]) -> None:
    """A header line, then the name if there are names, sequence and prediction; nan where there is none."""
    for part in rows:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        if part.first == 0:
            writer.writerow([*part.texts, "prediction"])
        writer.writerows(part.cells())
        file.write(text.getvalue().encode())


def write_parquet(file: BinaryIO, rows: Iterator[Rows]) -> None:
    """Columns name if there are names, sequence, prediction and problem (null where there is none, both)."""
    begin = next(rows, None)
    texts = ["sequence"] if begin is None else list(begin.texts)
    schema = pa.schema(
        [*((name, pa.string()) for name in texts), ("prediction", pa.float32()), ("problem", pa.string())]
    )
    batches = (
        batch
        for part in chain([] if begin is None else [begin], rows)
        for batch in pa.table(
            [*part.texts.values(), pa.array(part.prediction, pa.float32(), from_pandas=True), part.problem],
            schema=schema,
        ).to_batches()
    )
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for group in in_parts(batches, GROUP_ROWS):
            writer.write_table(group, GROUP_ROWS)


FORMATS: dict[str, Format] = {"tsv": write_lines, "csv": write_csv, "parquet": write_parquet}
SUFFIXES = {".tsv": "tsv", ".txt": "tsv", ".csv": "csv", ".parquet": "parquet"}


def format_of(output: str) -> Format:
    """By the name's ending; lines for standard output, devices and pipes. Raises UserError for another ending."""
    if is_stream(output):
        return write_lines
    path = Path(output)
    if path.is_dir():
        raise UserError(f"{output} is a folder; name a file in it")
    if path.suffix not in SUFFIXES:
        raise UserError(f"{output}: expected a name ending in {', '.join(SUFFIXES)}, or - for standard output")
    return FORMATS[SUFFIXES[path.suffix]]


def is_stream(output: str) -> bool:
    """Standard output, or a device or pipe such as /dev/stdout: written to as it is."""
    path = Path(output)
    return output == "-" or (path.exists() and not path.is_file() and not path.is_dir())


def problems_beside(output: str) -> Path:
    """Where the rows without a prediction are told."""
    return Path(output).with_suffix(".problems.tsv")


class Problems:
    """Rows that have no prediction: counted by reason, and told one by one in a file of lines.

    most: tell so many only, under a title, where the lines are for a person.
    """

    def __init__(self, file: TextIO, most: int | None = None) -> None:
        self.counts: dict[str, int] = {}
        self._file = file
        self._most = most
        self._told = 0

    def note(self, rows: Rows) -> None:
        """Tell those among some rows."""
        if rows.problem.null_count == len(rows.problem):
            return
        problems = zip(rows.problem.to_pylist(), rows.sequence.to_pylist(), strict=True)
        for number, (problem, sequence) in enumerate(problems, rows.first + 1):
            if problem is not None:
                if not self.counts:
                    title = "" if self._most is None else "rows without a prediction:\n"
                    self._file.write(title + "\t".join(PROBLEM_COLUMNS) + "\n")
                self.counts[problem] = self.counts.get(problem, 0) + 1
                if self._most is None or self._told < self._most:
                    self._tell(number, problem, sequence)

    def end(self) -> None:
        """Say how many were not told."""
        left = sum(self.counts.values()) - self._told
        if left:
            self._file.write(f"... and {left:,} more; an output file (-o NAME.tsv) gets all of them beside it\n")

    def _tell(self, number: int, problem: str, sequence: str) -> None:
        self._told += 1
        wrong = re.search("[^ACGTN]", sequence)
        where = f"{wrong[0]!r} at {wrong.start() + 1}" if wrong else ""
        self._file.write(f"{number}\t{problem}\t{len(sequence)}\t{where}\t{sequence}\n")
