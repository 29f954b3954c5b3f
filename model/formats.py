"""Predictions in the challenge's two forms, written as they come.

final        `sequence<TAB>prediction` lines without a header, in the order of the input
leaderboard  one JSON object of row numbers, as strings, to predictions: the rows that a sample submission names
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, TextIO

import numpy as np
import numpy.typing as npt

from pipeline.errors import UserError

FORMATS = ("final", "leaderboard")


class PredictionWriter(Protocol):
    """What predictions are handed to, in the order of the rows."""

    def add(self, sequences: Sequence[str], predictions: npt.NDArray[np.floating]) -> None:
        """The next rows and their predictions (rows,), NaN where a row could not be predicted."""

    def end(self) -> None:
        """All rows have come."""


class FinalWriter:
    """The final submission's lines."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def add(self, sequences: Sequence[str], predictions: npt.NDArray[np.floating]) -> None:
        """One line a row; nan where there is no prediction."""
        lines = zip(sequences, predictions, strict=True)
        self._file.writelines(f"{sequence}\t{value:.9g}\n" for sequence, value in lines)

    def end(self) -> None:
        """Nothing is held back."""


class LeaderboardWriter:
    """The public leaderboard's JSON. rows: numbers of the rows that it asks for, from 0."""

    def __init__(self, file: TextIO, rows: frozenset[int]) -> None:
        self._file = file
        self._rows = rows
        self._row = 0
        self._written = 0

    def add(self, sequences: Sequence[str], predictions: npt.NDArray[np.floating]) -> None:
        """Write those of the rows that are asked for. Raises UserError where one has no prediction."""
        for row, (sequence, value) in enumerate(zip(sequences, predictions, strict=True), self._row):
            if row not in self._rows:
                continue
            if not np.isfinite(value):
                raise UserError(f"row {row:,} of the leaderboard has no prediction: {sequence[:200]!r}")
            self._file.write(f'{", " if self._written else "{"}"{row}": {value:.9g}')
            self._written += 1
        self._row += len(sequences)

    def end(self) -> None:
        """Close the object. Raises UserError where rows that are asked for did not come."""
        if self._written < len(self._rows):
            lacking = min(row for row in self._rows if row >= self._row)
            raise UserError(
                f"the leaderboard asks for row {lacking:,} (from 0), but there are {self._row:,} rows; predict the "
                "challenge's test_sequences.txt, whole"
            )
        self._file.write("}\n")


def prediction_writer(form: str, file: TextIO, sample: Path | None = None) -> PredictionWriter:
    """The writer of one of FORMATS. sample: the leaderboard's sample_submission.json, whose keys are its rows."""
    if form == "final":
        return FinalWriter(file)
    if sample is None:
        raise UserError("the leaderboard's form has the rows of a sample submission; name it: sample_submission.json")
    return LeaderboardWriter(file, leaderboard_rows(sample))


def leaderboard_rows(sample: Path) -> frozenset[int]:
    """The row numbers that a sample submission asks for. Raises UserError for a file that is none."""
    try:
        values = json.loads(sample.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{sample}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{sample}: not JSON: {error}") from None
    if not isinstance(values, dict) or not values or not all(key.isdecimal() for key in values):
        raise UserError(f"{sample}: expected a JSON object whose keys are row numbers")
    return frozenset(map(int, values))
