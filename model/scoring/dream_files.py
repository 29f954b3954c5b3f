"""Readers of the DREAM Challenge's files: labels, predictions and subsets, by row number of the test file."""

import csv
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from model.artifacts.json_files import read_json
from model.scoring.dream import PAIRED, DreamScore, Rows, Values, dream_score, final_subsets
from pipeline.dataset.input.compression import read_chunks
from pipeline.dataset.input.lines import expect_utf8, text_blocks
from pipeline.errors import UserError
from pipeline.paths import looked_in
from pipeline.runtime.text import shorten

SUBSET_FILES = {
    "high": ("high_exp_seqs.csv", "high_exp_indices.json"),
    "low": ("low_exp_seqs.csv", "low_exp_indices.json"),
    "yeast": ("yeast_seqs.csv", "yeast_exp_indices.json"),
    "random": ("all_random_seqs.csv", "random_exp_indices.json"),
    "challenging": ("challenging_seqs.csv", "challenging_exp_indices.json"),
    "SNVs": ("all_SNVs_seqs.csv", "SNVs_exp_indices.json"),
    "motif_perturbation": ("motif_perturbation_seqs.csv", "motif_perturbation_exp_indices.json"),
    "motif_tiling": ("motif_tiling_seqs.csv", "motif_tiling_exp_indices.json"),
}
"""Subset -> names of its file in test_subset_ids and in public_leaderboard_ids."""
MAX_ROWS = 10**8
"""Limit of row numbers: labels by row number take an array up to the highest one."""
MAX_DIGITS = 30
"""Digits of a row number, with leading zeros: int() refuses more than 4,300."""
MAX_VALUE = sys.float_info.max


def score_files(
    predictions: Path, labels: Path, subsets: Path, public: Path | None = None, test_rows: Path | None = None
) -> DreamScore:
    """Compute the DREAM Challenge score of a file of predictions.

    subsets, public: folders of subset files; rows and pairs of `public` are excluded. test_rows: the test file, needed
    for labels by row number with predictions by sequence. Subset `all` is every row with a label. Raises UserError for
    files that are missing, invalid or do not belong together.
    """
    for path in (predictions, labels, subsets, public, test_rows):
        if path is not None and not path.exists():
            raise UserError(f"{path}: no such {'folder' if path in (subsets, public) else 'file'}{looked_in(path)}")
    measured = read_labels(labels, test_rows)
    scored = {"all": np.flatnonzero(np.isfinite(measured.values)), **read_subsets(subsets, measured)}
    if public is not None:
        scored = final_subsets(scored, read_subsets(public, measured))
    return dream_score(read_predictions(predictions, measured), measured.values, scored)


@dataclass(frozen=True)
class Labels:
    """Labels of a file `name` by row of the test file, NaN for no label; sequences: of the rows, None if unknown."""

    name: str
    values: Values
    sequences: list[str] | None


def read_labels(path: Path, test_rows: Path | None = None) -> Labels:
    """Read labels: `sequence<TAB>expression` lines in the order of the test file, or JSON of row number -> label.

    test_rows: the test file, which holds the sequences of labels by row number. Raises UserError for any other format
    and for values that are not numbers.
    """
    if path.suffix != ".json":
        texts, values = _read_lines(path)
        return Labels(str(path), values, texts)
    by_row = _read_values(path)
    sequences = None if test_rows is None else _read_lines(test_rows, labelled=False)[0]
    values = np.full(max(by_row, default=-1) + 1 if sequences is None else len(sequences), np.nan)
    _fill_by_row(path, values, by_row)
    return Labels(str(path), values, sequences)


def read_predictions(path: Path, labels: Labels) -> Values:
    """Read predictions: float64 (rows,) by row of the test file, NaN for rows without a label.

    Formats: `sequence<TAB>prediction` lines in any order, or JSON of row number -> prediction. Raises UserError for
    values that are not finite, and for rows that are missing, duplicate or not in the test file.
    """
    values = np.full(len(labels.values), np.nan)
    if path.suffix != ".json":
        _fill_by_sequence(path, values, labels)
    else:
        by_row = _read_values(path)
        if labels.sequences is None:  # the length of the test file is not known
            by_row = {row: value for row, value in by_row.items() if row < len(values)}
        _fill_by_row(path, values, by_row)
    missing = np.flatnonzero(np.isfinite(labels.values) & np.isnan(values))
    if len(missing):
        first = missing[0]
        sequence = "" if labels.sequences is None else f", {labels.sequences[first]}"
        raise UserError(
            f"{path}: no prediction for {len(missing):,} rows of {labels.name}, first row {first:,}{sequence}; "
            "fix: promoter-bert predict with the whole test file"
        )
    return values


def read_subsets(folder: Path, labels: Labels) -> dict[str, Rows]:
    """Read the subsets in a folder, in either format of the challenge; each row, (n,) int64, or pair, (n, 2), once.

    Raises UserError for a folder without subset files, and for files whose rows or sequences are not in the labels.
    """
    subsets: dict[str, Rows] = {}
    for name, (table, public) in SUBSET_FILES.items():
        if (folder / table).exists():
            rows = _read_csv(folder / table, name, labels)
        elif (folder / public).exists():
            width = 2 if name in PAIRED else 1
            rows = np.array(list(_read_object(folder / public, width)), np.int64).reshape(-1, width)
        else:
            continue
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(labels.values):
            raise UserError(
                f"{folder}: subset {name} names row {rows.max():,}, but {labels.name} has {len(labels.values):,} rows; "
                "fix: the labels that belong to these subsets"
            )
        subsets[name] = np.unique(rows, axis=0) if name in PAIRED else np.unique(rows)
    if not subsets:
        raise UserError(
            f"{folder}: no subset files; expected the challenge's test_subset_ids (high_exp_seqs.csv, ...) or "
            "public_leaderboard_ids (high_exp_indices.json, ...)"
        )
    return subsets


def _fill_by_sequence(path: Path, values: Values, labels: Labels) -> None:
    if labels.sequences is None:
        raise UserError(
            f"{path}: predictions by sequence, but {labels.name} has labels by row number; fix: the test file that "
            "these row numbers refer to: --test test_sequences.txt"
        )
    sequences, predictions = _read_lines(path, one_value=True)
    row_of = {sequence: row for row, sequence in enumerate(labels.sequences)}
    rows = np.array([row_of.get(sequence, -1) for sequence in sequences], np.int64)
    unknown = np.flatnonzero(rows < 0)
    if len(unknown):
        line = unknown[0]
        raise UserError(
            f"{path}, line {line + 1}: not a sequence of the test file, {sequences[line]!r} ({len(unknown):,} such "
            "lines); fix: promoter-bert predict with the challenge's test_sequences.txt"
        )
    invalid = np.flatnonzero(~np.isfinite(predictions))
    if len(invalid):
        line = invalid[0]
        raise UserError(
            f"{path}, line {line + 1}: expected a finite prediction, got {predictions[line]} "
            f"({len(invalid):,} such lines)"
        )
    values[rows] = predictions


def _fill_by_row(path: Path, values: Values, by_row: dict[int, float]) -> None:
    if not by_row:
        raise UserError(f"{path}: expected a JSON object of row numbers and values, got an empty object")
    rows = np.array(list(by_row), np.int64)
    if rows.max() >= len(values):
        raise UserError(f"{path}: expected rows 0 to {len(values) - 1:,} of the test file, got row {rows.max():,}")
    values[rows] = list(by_row.values())


def _read_lines(path: Path, labelled: bool = True, one_value: bool = False) -> tuple[list[str], Values]:
    """Read sequences and float64 values (rows,) of a text file without a header line; each sequence once.

    one_value: whether a line with a second number is an error, as of a model with several labels.
    """
    line_of: dict[str, int] = {}
    values: list[float] = []
    for number, line in enumerate(_text_lines(path), 1):
        sequence, _, rest = line.partition("\t")
        first_cell, _, others = rest.partition("\t")
        value = _parse_number(first_cell)
        if one_value and _parse_number(others.partition("\t")[0]) is not None:
            raise UserError(
                f"{path}, line {number}: expected one prediction, got several; fix: write sequence and prediction of "
                "one label, such as cut -f 1,2"
            )
        if labelled and value is None:
            raise UserError(
                f"{path}, line {number}: expected a sequence, a tab and a number, got {shorten(line, 200)!r}"
            )
        first = line_of.setdefault(sequence, number)
        if first != number:
            raise UserError(
                f"{path}, line {number}: duplicate of line {first}, {sequence}; expected each sequence once"
            )
        values.append(np.nan if value is None else value)
    return list(line_of), np.array(values, np.float64)


def _text_lines(path: Path) -> Iterator[str]:
    """Read the lines of a text file in UTF-8, as a build reads them: no glob pattern, no delimiter, no quotes."""
    name = str(path)
    for block in text_blocks(name, read_chunks(name)):
        yield from expect_utf8(name, block).data.decode().split("\n")[:-1]


def _parse_number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _read_csv(path: Path, name: str, labels: Labels) -> Rows:
    """Read row numbers (rows, 1 or 2) of a file of test_subset_ids; compare its sequences with those of the labels."""
    sides = ("alt_", "ref_") if name in PAIRED else ("",)
    columns = [f"{side}{column}" for side in sides for column in ("pos", "sequence")]
    lines = _read_cells(path, columns)
    rows = np.empty((len(lines), len(sides)), np.int64)
    for line, cells in enumerate(lines):
        for side, (text, sequence) in enumerate(zip(cells[::2], cells[1::2], strict=True)):
            if (row := _parse_row(text)) is None:
                raise UserError(f"{path}, line {line + 2}: expected a row number, got {shorten(text, 200)!r}")
            rows[line, side] = row
            expected = labels.sequences
            if expected is not None and row < len(expected) and expected[row] != sequence:
                raise UserError(
                    f"{path}, line {line + 2}: row {row} is {sequence} here, but {expected[row]} in {labels.name}; "
                    "fix: files of the same test set, in its order"
                )
    return rows


def _read_cells(path: Path, columns: list[str]) -> list[list[str]]:
    """Read the cells of some columns of a CSV file with a header line, by line; empty for a missing cell."""
    try:
        header, *rows = csv.reader(_text_lines(path))
        places = [header.index(column) for column in columns]
    except csv.Error as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    except ValueError:
        raise UserError(f"{path}: expected columns {', '.join(columns)}") from None
    return [[row[place] if place < len(row) else "" for place in places] for row in rows]


def _parse_row(text: str) -> int | None:
    """Parse a row number below MAX_ROWS."""
    is_row = text.isdecimal() and len(text) < MAX_DIGITS
    return int(text) if is_row and int(text) < MAX_ROWS else None


def _read_values(path: Path) -> dict[int, float]:
    """Read a JSON object of row numbers and finite values."""
    by_row = {row: value for (row,), value in _read_object(path, 1).items()}
    for row, value in by_row.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not -MAX_VALUE <= value <= MAX_VALUE:
            raise UserError(f"{path}: row {row}: expected a finite number, got {value!r:.200}")
    return by_row


def _read_object(path: Path, width: int) -> dict[tuple[int, ...], Any]:
    """Read a JSON object whose keys are row numbers (width 1), or pairs "alt,ref" of row numbers (width 2)."""
    pairs = read_json(path, tuple)
    if not isinstance(pairs, tuple):
        raise UserError(f"{path}: expected a JSON object of row numbers and values, got another JSON value")
    values: dict[tuple[int, ...], Any] = {}
    for key, value in pairs:
        rows = tuple(row for row in map(_parse_row, key.split(",")) if row is not None)
        if len(rows) != width or key.count(",") != width - 1:
            expected = "two row numbers with a comma between" if width == 2 else "row numbers"
            raise UserError(f"{path}: expected {expected} as keys, got {key[:200]!r}")
        if rows in values:
            raise UserError(f"{path}: duplicate row {key}; expected each row once")
        values[rows] = value
    return values
