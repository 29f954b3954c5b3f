"""Write predictions in the order of the input: TSV, CSV, Parquet, or the JSON of the challenge's leaderboard."""

import csv
import io
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
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
from pipeline.shards.writer import in_parts

GROUP_ROWS = 65_536
"""Rows per row group in Parquet."""


@dataclass(frozen=True)
class PredictedRows:
    """Successive rows of the output.

    first: number of the first row, from 0. table: name (where the input has names), sequence (as read), prediction
    (float32, null where there is none), and problem (null for a valid row).
    """

    first: int
    table: pa.Table

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @classmethod
    def of_part(cls, part: Part, values: npt.NDArray[np.float32]) -> "PredictedRows":
        """Join a part with the predictions of its usable rows."""
        prediction = np.full(len(part), np.nan, np.float32)
        prediction[part.table["problem"].is_null().to_numpy()] = values
        place = part.table.column_names.index("repaired")
        return cls(part.first, part.table.set_column(place, "prediction", pa.array(prediction, from_pandas=True)))

    def cells(self) -> Iterator[tuple[str, ...]]:
        """Yield the columns up to the prediction of each row as text, with nan for a missing prediction."""
        *texts, prediction, _ = (column.to_pylist() for column in self.table.columns)
        return zip(*texts, map(as_text, prediction), strict=True)


def as_text(value: float | None) -> str:
    """Format a prediction for text output with six significant digits; nan for None.

    float32 holds seven. The last of them, and sometimes the one before, depends on the processor, the number of threads
    and the other rows of the batch, so more digits would mean nothing. Parquet keeps the float32 as it is.
    """
    return "nan" if value is None else f"{value:.6g}"


Writer = Callable[[BinaryIO, Iterator[PredictedRows]], None]
"""Writes all rows to an open file as they come."""


def write_lines(file: BinaryIO, parts: Iterator[PredictedRows]) -> None:
    """Write `sequence<TAB>prediction` lines without a header, with the name as a first column where there are names."""
    for rows in parts:
        table = rows.table
        if "name" in table.column_names:  # a tab or line end in a name would split the line
            table = table.set_column(0, "name", pc.replace_substring_regex(table["name"], r"\s", " "))
        lines = PredictedRows(rows.first, table).cells()
        file.write("".join("\t".join(cells) + "\n" for cells in lines).encode())
        file.flush()  # the reader of a pipe gets rows as they come


def write_csv(file: BinaryIO, parts: Iterator[PredictedRows]) -> None:
    """Write CSV with a header line: name (where there are names), sequence, prediction."""
    for rows in parts:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        if rows.first == 0:
            writer.writerow(rows.table.column_names[:-1])
        writer.writerows(rows.cells())
        file.write(text.getvalue().encode())


def write_parquet(file: BinaryIO, parts: Iterator[PredictedRows]) -> None:
    """Write Parquet: name (where there are names), sequence, prediction (float, or null), problem (text, or null)."""
    first = next(parts, None)
    if first is None:
        return
    batches = (batch for rows in chain([first], parts) for batch in rows.table.to_batches())
    with pq.ParquetWriter(file, first.table.schema, compression="zstd") as writer:
        for group in in_parts(batches, GROUP_ROWS):
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
    """The input is not the leaderboard's, so the same command would fail again."""


def leaderboard_writer(sample: Path) -> Writer:
    """Return a writer of JSON from row number (from 0, as text) to prediction.

    sample: the challenge's sample_submission.json, whose keys are the rows to write. Raises UserError for another file.
    The writer raises UserError for a prediction that is not finite, RefusedError where a row of the sample is missing
    or has no prediction.
    """
    required = leaderboard_rows(sample)

    def write(file: BinaryIO, parts: Iterator[PredictedRows]) -> None:
        texts, end = [], 0
        for rows in parts:
            end = rows.first + len(rows)
            for row in sorted(required.intersection(range(rows.first, end))):
                cells = rows.table.slice(row - rows.first, 1).to_pylist()[0]
                texts.append(f'"{row}": {_leaderboard_value(row, **cells)}')
        if len(texts) < len(required):
            missing = min(row for row in required if row >= end)
            raise RefusedError(
                f"the leaderboard requires row {missing:,} (from 0), but there are {end:,} rows; fix: predict the "
                "challenge's complete test_sequences.txt"
            )
        file.write(f"{{{', '.join(texts)}}}\n".encode())

    return write


def _leaderboard_value(row: int, sequence: str, prediction: float | None, problem: str | None) -> str:
    which = f"row {row:,} (from 0), which the leaderboard requires,"
    if problem is not None:
        raise RefusedError(
            f"{which} has no prediction: {problem}: {sequence[:200]!r}; fix: predict the challenge's "
            "test_sequences.txt unchanged"
        )
    if prediction is None or not np.isfinite(prediction):
        raise UserError(
            f"{which} has a prediction that is not a finite number: {sequence[:200]!r}. GPUs predict in fp16, which "
            "may be too narrow; fix: predict on a CPU (CUDA_VISIBLE_DEVICES=)"
        )
    return as_text(prediction)


def check_leaderboard_rows(sample: Path, parts: Iterator[Part]) -> None:
    """Raise RefusedError where a row of the sample is missing or invalid, before any row is predicted."""
    rows = (PredictedRows.of_part(part, np.zeros(len(part.usable), np.float32)) for part in parts)
    with Path(os.devnull).open("wb") as nowhere:
        leaderboard_writer(sample)(nowhere, rows)


def leaderboard_rows(sample: Path) -> frozenset[int]:
    """Read the row numbers of a sample submission. Raises UserError for another file."""
    values = read_json(sample)
    if not isinstance(values, dict) or not values or not all(key.isdecimal() for key in values):
        raise UserError(f"{sample}: expected a JSON object whose keys are row numbers")
    return frozenset(map(int, values))
