"""Predictions as the challenge's public leaderboard takes them: JSON of the rows that its sample submission names."""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from model.json_files import read_json
from model.outputs import Format, Rows
from pipeline.errors import UserError


def leaderboard(sample: Path) -> Format:
    """Row numbers, from 0 and as strings, to predictions. sample: sample_submission.json, whose keys are the rows.

    Raises UserError for a sample that is none, and, when writing, where a row that is asked for has no prediction or
    does not come.
    """
    asked = leaderboard_rows(sample)

    def write(file: BinaryIO, rows: Iterator[Rows]) -> None:
        written, end = 0, 0
        for part in rows:
            end = part.first + len(part.prediction)
            for row in range(part.first, end):
                if row not in asked:
                    continue
                value = part.prediction[row - part.first]
                if not np.isfinite(value):
                    sequence = part.sequence[row - part.first].as_py()
                    raise UserError(f"row {row:,} of the leaderboard has no prediction: {sequence[:200]!r}")
                file.write(f'{", " if written else "{"}"{row}": {value:.9g}'.encode())
                written += 1
        if written < len(asked):
            lacking = min(row for row in asked if row >= end)
            raise UserError(
                f"the leaderboard asks for row {lacking:,} (from 0), but there are {end:,} rows; predict the "
                "challenge's test_sequences.txt, whole"
            )
        file.write(b"}\n")

    return write


def leaderboard_rows(sample: Path) -> frozenset[int]:
    """The row numbers that a sample submission asks for. Raises UserError for a file that is none."""
    values = read_json(sample)
    if not isinstance(values, dict) or not values or not all(key.isdecimal() for key in values):
        raise UserError(f"{sample}: expected a JSON object whose keys are row numbers")
    return frozenset(map(int, values))
