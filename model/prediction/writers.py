"""Write predictions in the order of the input: TSV, CSV, Parquet, or the JSON of the challenge's leaderboard."""

import csv
import io
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from model.artifacts.json_files import read_json
from model.prediction.inputs import Part
from pipeline.errors import UserError
from pipeline.io.arrow import rebatch

GROUP_ROWS = 65_536
"""Rows per row group in Parquet."""


@dataclass(frozen=True)
class PredictedRows:
    """Successive rows of the output.

    first: number of the first row, from 0. sequence: as it came. prediction: (rows,) float32, NaN where problem is not
    null. name: None where the output has no names.
    """

    first: int
    sequence: pa.ChunkedArray
    prediction: npt.NDArray[np.float32]
    problem: pa.ChunkedArray
    name: pa.ChunkedArray | None = None

    @classmethod
    def of_part(cls, part: Part, values: npt.NDArray[np.float32]) -> "PredictedRows":
        """Join a part with the values of its usable rows."""
        problem = part.table["problem"]
        prediction = np.full(len(part), np.nan, np.float32)
        prediction[problem.is_null().to_numpy()] = values
        name = part.table["name"] if "name" in part.table.column_names else None
        return cls(part.first, part.table["sequence"], prediction, problem, name)

    @property
    def texts(self) -> dict[str, pa.ChunkedArray]:
        """The columns before the prediction: name, where there are names, and sequence."""
        return {"sequence": self.sequence} if self.name is None else {"name": self.name, "sequence": self.sequence}

    def cells(self) -> Iterator[tuple[str, ...]]:
        """Yield each row as text, with nan for a row without a prediction."""
        texts = (column.to_pylist() for column in self.texts.values())
        return zip(*texts, map(as_text, self.prediction.tolist()), strict=True)


def as_text(value: float) -> str:
    """Format a prediction for text output with six significant digits.

    float32 holds seven. The last of them, and sometimes the one before, depends on the processor, the number of threads
    and the other rows of the batch, so more digits would mean nothing. Parquet keeps the float32 as it is.
    """
    return f"{value:.6g}"


Writer = Callable[[BinaryIO, Iterator[PredictedRows]], None]
"""Writes all rows to an open file as they come."""


def write_lines(file: BinaryIO, rows: Iterator[PredictedRows]) -> None:
    """Write `sequence<TAB>prediction` lines without a header, with the name as a first column where there are names."""
    for part in rows:
        if part.name is not None:  # a tab or line end in a name would split the line
            part = replace(part, name=pc.replace_substring_regex(part.name, r"\s", " "))
        file.write("".join("\t".join(cells) + "\n" for cells in part.cells()).encode())
        file.flush()  # the reader of a pipe gets rows as they come


def write_csv(file: BinaryIO, rows: Iterator[PredictedRows]) -> None:
    """Write CSV with a header line: name (where there are names), sequence, prediction."""
    for part in rows:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        if part.first == 0:
            writer.writerow([*part.texts, "prediction"])
        writer.writerows(part.cells())
        file.write(text.getvalue().encode())


def write_parquet(file: BinaryIO, rows: Iterator[PredictedRows]) -> None:
    """Write Parquet: name (where there are names), sequence, prediction (float, or null), problem (text, or null)."""
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
        for group in rebatch(batches, GROUP_ROWS):
            writer.write_table(group, GROUP_ROWS)


WRITERS: dict[str, Writer] = {".tsv": write_lines, ".txt": write_lines, ".csv": write_csv, ".parquet": write_parquet}
"""By the suffix of the output."""


def find_writer(output: str) -> Writer:
    """Choose the writer by the suffix; lines for standard output, devices and pipes.

    Raises UserError for another suffix.
    """
    if is_stream(output):
        return write_lines
    path = Path(output)
    if path.is_dir():
        raise UserError(f"{output}: is a folder; expected the name of a file")
    if path.suffix not in WRITERS:
        raise UserError(f"{output}: expected a name ending in {', '.join(WRITERS)}, or - for standard output")
    return WRITERS[path.suffix]


def is_stream(output: str) -> bool:
    """Whether the output is standard output, a device or a pipe: written as rows come, and never resumed."""
    path = Path(output)
    return output == "-" or (path.exists() and not path.is_file() and not path.is_dir())


class RefusedError(UserError):
    """The rows are not those that the leaderboard asks for, so the same command would fail again."""


def leaderboard_writer(sample: Path) -> Writer:
    """Return a writer of JSON from row number (from 0, as text) to prediction.

    sample: the challenge's sample_submission.json, whose keys are the rows to write. Raises UserError for another file.
    The writer raises UserError for a prediction that is not finite, RefusedError where a row of the sample is missing
    or has no prediction.
    """
    wanted = leaderboard_rows(sample)

    def write(file: BinaryIO, rows: Iterator[PredictedRows]) -> None:
        written, end = 0, 0
        for part in rows:
            end = part.first + len(part.prediction)
            for row in sorted(wanted.intersection(range(part.first, end))):
                value = part.prediction[row - part.first]
                if not np.isfinite(value):
                    raise _no_leaderboard_value(part, row)
                file.write(f'{", " if written else "{"}"{row}": {as_text(value)}'.encode())
                written += 1
        if written < len(wanted):
            missing = min(row for row in wanted if row >= end)
            raise RefusedError(
                f"the leaderboard asks for row {missing:,} (from 0), but there are {end:,} rows; fix: predict the "
                "challenge's complete test_sequences.txt"
            )
        file.write(b"}\n")

    return write


def _no_leaderboard_value(part: PredictedRows, row: int) -> UserError:
    sequence, problem = (column[row - part.first].as_py() for column in (part.sequence, part.problem))
    which = f"row {row:,} (from 0), which the leaderboard asks for,"
    if problem is not None:
        return RefusedError(
            f"{which} has no prediction: {problem}: {sequence[:200]!r}; fix: predict the challenge's "
            "test_sequences.txt unchanged"
        )
    return UserError(
        f"{which} has a prediction that is not a finite number: {sequence[:200]!r}. GPUs predict in fp16, which may "
        "be too narrow; fix: predict on a CPU (CUDA_VISIBLE_DEVICES=)"
    )


def check_leaderboard_rows(sample: Path, parts: Iterator[Part]) -> None:
    """Raise RefusedError where a row of the sample is missing or invalid, before any row is predicted."""
    rows = (PredictedRows.of_part(part, np.zeros(len(part.usable), np.float32)) for part in parts)
    with Path(os.devnull).open("wb") as nowhere:
        leaderboard_writer(sample)(nowhere, rows)


def leaderboard_rows(sample: Path) -> frozenset[int]:
    """Read the row numbers that a sample submission asks for. Raises UserError for a file that is none."""
    values = read_json(sample)
    if not isinstance(values, dict) or not values or not all(key.isdecimal() for key in values):
        raise UserError(f"{sample}: expected a JSON object whose keys are row numbers")
    return frozenset(map(int, values))
