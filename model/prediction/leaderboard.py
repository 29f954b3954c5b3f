"""Predictions as the challenge's public leaderboard takes them: JSON of the rows that its sample submission names."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from model.artifacts.json_files import read_json
from model.prediction.inputs import Part
from model.prediction.writers import Format, Rows, as_text
from pipeline.errors import UserError


class RefusedError(UserError):
    """These rows are not those that the leaderboard asks for: the same command would end like this again."""


def leaderboard(sample: Path) -> Format:
    """Row numbers, from 0 and as strings, to predictions. sample: sample_submission.json, whose keys are the rows.

    Raises UserError for a sample that is none and, when writing, for a prediction that is not a finite number;
    RefusedError where a row that is asked for has none or does not come.
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
                    sequence, problem = (each[row - part.first].as_py() for each in (part.sequence, part.problem))
                    which = f"row {row:,} (from 0), which the leaderboard asks for,"
                    if problem is None:
                        raise UserError(
                            f"{which} has a prediction that is not a finite number: {sequence[:200]!r}. On a GPU "
                            "models predict in fp16, which may be too narrow: predict on a CPU (CUDA_VISIBLE_DEVICES=)"
                        )
                    raise RefusedError(
                        f"{which} has no prediction: {problem}: {sequence[:200]!r}; predict the challenge's "
                        "test_sequences.txt, as it is"
                    )
                file.write(f'{", " if written else "{"}"{row}": {as_text(value)}'.encode())
                written += 1
        if written < len(asked):
            lacking = min(row for row in asked if row >= end)
            raise RefusedError(
                f"the leaderboard asks for row {lacking:,} (from 0), but there are {end:,} rows; predict the "
                "challenge's test_sequences.txt, whole"
            )
        file.write(b"}\n")

    return write


def check_rows(sample: Path, parts: Iterator[Part]) -> None:
    """Raise RefusedError where a row that is asked for does not come or is no promoter, before any is predicted."""

    def foreseen() -> Iterator[Rows]:
        for part in parts:
            problem = part.table["problem"]
            value = np.where(problem.is_null().to_numpy(), np.float32(0), np.float32(np.nan))
            yield Rows(part.first, part.table["sequence"], value, problem)

    with Path(os.devnull).open("wb") as nowhere:
        leaderboard(sample)(nowhere, foreseen())


def leaderboard_rows(sample: Path) -> frozenset[int]:
    """The row numbers that a sample submission asks for. Raises UserError for a file that is none."""
    values = read_json(sample)
    if not isinstance(values, dict) or not values or not all(key.isdecimal() for key in values):
        raise UserError(f"{sample}: expected a JSON object whose keys are row numbers")
    return frozenset(map(int, values))
