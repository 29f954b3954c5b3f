"""The challenge's files: labels, predictions and subsets, by row number of the test file."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt

from model.artifacts.json_files import read_json
from model.scoring.dream import PAIRED, ChallengeScore, Rows, Values, challenge_score, final_subsets
from pipeline.dataset.database import explain
from pipeline.errors import UserError

FILES = {
    "high": ("high_exp_seqs.csv", "high_exp_indices.json"),
    "low": ("low_exp_seqs.csv", "low_exp_indices.json"),
    "yeast": ("yeast_seqs.csv", "yeast_exp_indices.json"),
    "random": ("all_random_seqs.csv", "random_exp_indices.json"),
    "challenging": ("challenging_seqs.csv", "challenging_exp_indices.json"),
    "SNVs": ("all_SNVs_seqs.csv", "SNVs_exp_indices.json"),
    "motif_perturbation": ("motif_perturbation_seqs.csv", "motif_perturbation_exp_indices.json"),
    "motif_tiling": ("motif_tiling_seqs.csv", "motif_tiling_exp_indices.json"),
}
"""Of each subset: in test_subset_ids, and in public_leaderboard_ids."""


def score_files(
    predictions: Path, labels: Path, subsets: Path, public: Path | None = None, test_rows: Path | None = None
) -> ChallengeScore:
    """Score a file of predictions. subsets, public: folders of subset files; public: what is left out.

    test_rows: the test file, where labels come by row number and predictions by sequence. Subset `all` is every row
    with a label. Raises UserError for files that do not belong together.
    """
    for path in (predictions, labels, subsets, public, test_rows):
        if path is not None and not path.exists():
            raise UserError(f"{path}: no such {'folder' if path in (subsets, public) else 'file'}")
    measured = read_labels(labels, test_rows)
    chosen = {"all": np.flatnonzero(np.isfinite(measured.values)), **read_subsets(subsets, measured)}
    if public is not None:
        chosen = final_subsets(chosen, read_subsets(public, measured))
    return challenge_score(read_predictions(predictions, measured), measured.values, chosen)


@dataclass(frozen=True)
class Table:
    """Values by row number of the test file, NaN where there is none; sequences: of those rows, if they are known."""

    name: str
    values: Values
    sequences: list[str] | None


def read_labels(path: Path, test_rows: Path | None = None) -> Table:
    """Labels: `sequence<TAB>expression` lines in the order of the test file, or JSON of row number to label.

    test_rows: the test file, for the sequences of labels that come by row number. Raises UserError for a file that is
    neither, and for what is no number.
    """
    if path.suffix != ".json":
        listed, given = _read_lines(path)
        _check_each_once(path, listed)
        return Table(str(path), given, listed)
    by_row = _read_json(path)
    sequences: list[str] | None = None
    if test_rows is not None:
        sequences, _ = _read_lines(test_rows, labelled=False)
        _check_each_once(test_rows, sequences)
    values = np.full(max(by_row, default=-1) + 1 if sequences is None else len(sequences), np.nan)
    _fill(path, values, by_row)
    return Table(str(path), values, sequences)


def read_predictions(path: Path, labels: Table) -> Values:
    """Predictions by row number: (rows,), NaN for rows that have no label and need none.

    `sequence<TAB>prediction` lines in any order are put to rows by their sequence; JSON goes by row number. Raises
    UserError for values that are not finite, and for rows that are missing, come twice or are no test rows.
    """
    values = np.full(len(labels.values), np.nan)
    if path.suffix == ".json":
        by_row = _read_json(path)
        if labels.sequences is None:  # where the test file ends is not known
            by_row = {row: value for row, value in by_row.items() if row < len(values)}
        _fill(path, values, by_row)
    else:
        _fill_by_sequence(path, values, labels)
    lacking = np.flatnonzero(np.isfinite(labels.values) & np.isnan(values))
    if len(lacking):
        first = lacking[0]
        which = f"row {first:,}" if labels.sequences is None else f"row {first:,}, {labels.sequences[first]}"
        raise UserError(f"{path}: no prediction for {len(lacking):,} rows of {labels.name}, first {which}; predict all")
    return values


def _fill_by_sequence(path: Path, values: Values, labels: Table) -> None:
    if labels.sequences is None:
        raise UserError(
            f"{path}: predictions by sequence, but {labels.name} has labels by row number; name the test file whose "
            "rows they are: --test test_sequences.txt"
        )
    sequences, given = _read_lines(path)
    _check_each_once(path, sequences)
    rows = _rows_of(path, sequences, labels)
    wrong = np.flatnonzero(~np.isfinite(given))
    if len(wrong):
        line = wrong[0]
        raise UserError(
            f"{path}, line {line + 1}: expected a finite prediction, got {given[line]} ({len(wrong):,} such lines)"
        )
    values[rows] = given


def read_subsets(folder: Path, labels: Table) -> dict[str, Rows]:
    """The subsets whose files are in a folder, in either of the challenge's forms; each row or pair once.

    Raises UserError where there is none, and where a file names rows that the labels do not have, or other sequences.
    """
    found: dict[str, Rows] = {}
    for name, (listed, public) in FILES.items():
        if (folder / listed).exists():
            rows = _read_csv(folder / listed, name, labels)
        elif (folder / public).exists():
            rows = _read_indices(folder / public, name)
        else:
            continue
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(labels.values):
            raise UserError(
                f"{folder}: subset {name} names row {rows.max():,}, but {labels.name} has {len(labels.values):,} rows; "
                "give the labels that belong to these subsets"
            )
        found[name] = rows
    if not found:
        raise UserError(
            f"{folder}: no subset files; expected the challenge's test_subset_ids (high_exp_seqs.csv, ...) or "
            "public_leaderboard_ids (high_exp_indices.json, ...)"
        )
    return found


def _read_lines(path: Path, labelled: bool = True) -> tuple[list[str], Values]:
    """Sequences and numbers of a text file without a header line, in its order."""
    try:
        with duckdb.connect() as connection:
            rows = connection.sql(
                "select split_part(line, chr(9), 1), try_cast(split_part(line, chr(9), 2) as double), line "
                "from read_csv(?, columns = {'line': 'varchar'}, header = false, auto_detect = false, delim = chr(1), "
                "quote = '', escape = '', strict_mode = false, skip = 0)",
                params=[str(path)],
            ).to_arrow_table()
    except duckdb.Error as error:
        raise UserError(f"{path}: cannot be read: {explain(error)}") from None
    sequences, numbers, lines = (column.to_pylist() for column in rows.columns)
    if labelled:
        wrong = next((place for place, number in enumerate(numbers) if number is None), None)
        if wrong is not None:
            raise UserError(
                f"{path}, line {wrong + 1}: expected a sequence, a tab and a number, got {(lines[wrong] or '')[:200]!r}"
            )
    return sequences, np.array([np.nan if number is None else number for number in numbers], np.float64)


def _read_json(path: Path) -> dict[int, float]:
    """Row number to value."""
    values = _load(path)
    found: dict[int, float] = {}
    for key, value in values.items():
        if not key.isdecimal():
            raise UserError(f"{path}: expected row numbers as keys, got {key!r}")
        if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
            raise UserError(f"{path}: row {key}: expected a finite number, got {value!r}")
        found[int(key)] = float(value)
    if len(found) != len(values):
        raise UserError(f"{path}: a row number comes twice, written in two ways")
    return found


def _load(path: Path) -> dict[str, Any]:
    """A JSON object. Raises UserError where it is none, or names a key twice."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) != len(pairs):
            (twice, _), *_ = Counter(key for key, _ in pairs).most_common(1)
            raise UserError(f"{path}: row {twice} comes twice")
        return values

    values = read_json(path, once)
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected a JSON object of row numbers and values")
    return values


def _fill(path: Path, values: Values, by_row: dict[int, float]) -> None:
    if not by_row:
        raise UserError(f"{path}: expected a JSON object of row numbers and values, got an empty one")
    rows = np.array(list(by_row), np.int64)
    if rows.max() >= len(values):
        raise UserError(f"{path}: row {rows.max():,}, but there are {len(values):,} test rows, counted from 0")
    values[rows] = list(by_row.values())


def _check_each_once(path: Path, sequences: list[str]) -> None:
    first: dict[str, int] = {}
    for line, sequence in enumerate(sequences, 1):
        before = first.setdefault(sequence, line)
        if before != line:
            raise UserError(f"{path}, line {line}: the same sequence as line {before}, {sequence}; expected each once")


def _rows_of(path: Path, sequences: list[str], labels: Table) -> npt.NDArray[np.int64]:
    assert labels.sequences is not None
    row_of = {sequence: row for row, sequence in enumerate(labels.sequences)}
    rows = np.array([row_of.get(sequence, -1) for sequence in sequences], np.int64)
    foreign = np.flatnonzero(rows < 0)
    if len(foreign):
        line = foreign[0]
        raise UserError(
            f"{path}, line {line + 1}: {sequences[line]!r} is no test sequence ({len(foreign):,} such lines); "
            "predict the challenge's test_sequences.txt"
        )
    return rows


def _read_csv(path: Path, name: str, labels: Table) -> Rows:
    """Row numbers of one of test_subset_ids, its sequences held against the labels' where these are known."""
    sides = ("alt_", "ref_") if name in PAIRED else ("",)
    wanted = [f"{side}{column}" for side in sides for column in ("pos", "sequence")]
    try:
        with duckdb.connect() as connection:
            found = connection.execute(
                f"select {', '.join(wanted)} from read_csv(?, header = true, all_varchar = true)", [str(path)]
            ).fetchall()
    except duckdb.BinderException:
        raise UserError(f"{path}: expected columns {', '.join(wanted)}") from None
    except duckdb.Error as error:
        raise UserError(f"{path}: cannot be read: {explain(error)}") from None
    rows = np.empty((len(found), len(sides)), np.int64)
    for line, cells in enumerate(found):
        for side in range(len(sides)):
            number, sequence = cells[2 * side], cells[2 * side + 1]
            if not (number or "").isdecimal():
                raise UserError(f"{path}, line {line + 2}: expected a row number, got {number!r}")
            rows[line, side] = int(number)
            known = labels.sequences
            if known is not None and int(number) < len(known) and known[int(number)] != sequence:
                raise UserError(
                    f"{path}, line {line + 2}: row {number} is {sequence} here, but {known[int(number)]} in "
                    f"{labels.name}; give files of the same test set, in its order"
                )
    return np.unique(rows, axis=0) if name in PAIRED else np.unique(rows)


def _read_indices(path: Path, name: str) -> Rows:
    """Row numbers of one of public_leaderboard_ids; its labels are not read."""
    width = 2 if name in PAIRED else 1
    keys = [key.split(",") for key in _load(path)]
    for key in keys:
        if len(key) != width or not all(number.isdecimal() for number in key):
            expected = "two row numbers with a comma between" if width == 2 else "a row number"
            raise UserError(f"{path}: expected {expected} as a key, got {','.join(key)!r}")
    rows = np.array(keys, np.int64).reshape(len(keys), width)
    return np.unique(rows, axis=0) if width == 2 else np.unique(rows)
