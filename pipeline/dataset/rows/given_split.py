"""Splits that the input gives (dataset.split=column): by a column, or by one file per split."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import duckdb

from pipeline.config.schema import Dataset
from pipeline.dataset.database import rows_of
from pipeline.dataset.input.files import Input, InputColumn
from pipeline.dataset.input.view import set_variables
from pipeline.dataset.rows.names import quoted_text
from pipeline.errors import UserError
from pipeline.paths import suggest
from pipeline.runtime.text import format_count

SPLITS = ("test", "valid", "train")
"""In the order of the ids."""
KNOWN_VALUES = {
    "test": ("test", "testing"),
    "valid": ("val", "valid", "validation", "dev"),
    "train": ("train", "training"),
}
"""Values that are understood in any case if the settings name none."""
WHOLE_NUMBER = r"^(-?\d+)\.0+$"
"""A whole number with a decimal point: 8.0 is the value 8, as in a column that becomes DOUBLE."""
MOST_VALUES = 20
"""Values in a message."""
FIX_VALUES = "fix: dataset.train_values=[...] dataset.valid_values=[...] dataset.test_values=[...]"
FILES = "one file per split"
FIX_VALID = (
    "fix: name them (dataset.valid_values=[...], or --valid FILE), or take a tenth of the training rows: "
    "dataset.valid_from_train=0.1"
)


@dataclass(frozen=True)
class GivenSplit:
    """A given split. title: where it comes from; cell: SQL of its value in text; split: SQL of test, valid or train.

    listed: the values that the settings name.
    """

    title: str
    cell: str
    split: str
    listed: tuple[str, ...] = ()


def find_given_split(source: Input, dataset: Dataset, split_files: Mapping[str, Sequence[str]]) -> GivenSplit | None:
    """Find the given split of an input; None for another split. split_files: the files of each split.

    Raises UserError if neither a column nor files are named, or if the column does not exist or holds labels.
    """
    if dataset.split != "column":
        return None
    if split_files:
        cases = " ".join(
            f"when file in ({', '.join(map(quoted_text, files))}) then '{split}'"
            for split, files in split_files.items()
        )
        sql = f"case {cases} end"
        return GivenSplit(FILES, sql, sql)
    if not dataset.split_column:
        raise UserError(
            "dataset.split=column: no column is named; fix: dataset.split_column=NAME, or one file per split: --train "
            "FILE --valid FILE --test FILE"
        )
    column = find_column(source, dataset.split_column, "dataset.split_column")
    if column.role == "label":
        raise UserError(f"dataset.split_column={dataset.split_column}: holds labels; expected another column")
    cell = cell_text(column, len(source.label_columns) > 1)
    values = {
        split: [re.sub(WHOLE_NUMBER, r"\1", value.strip()) for value in getattr(dataset, f"{split}_values")]
        for split in SPLITS
    }
    title = f"column {column.name!r}"
    if not any(values.values()):
        return GivenSplit(title, cell, _cases(f"lower({cell})", KNOWN_VALUES, ""))
    # Without values of training rows, all other rows are training rows: a hold-out of chromosomes or folds.
    rest = "" if values["train"] else f"when not is_missing_cell({cell}) then 'train'"
    listed = tuple(value for split in SPLITS for value in values[split])
    if twice := [value for value in listed if listed.count(value) > 1]:
        raise UserError(f"{title}: {twice[0]!r} is a value of two splits; expected each value once; {FIX_VALUES}")
    return GivenSplit(title, cell, _cases(cell, values, rest), listed)


def find_column(source: Input, requested: str, setting: str) -> InputColumn:
    """Find a column of the input by its name as written, by its name in any case, or by its number.

    Raises UserError if there is none, or if several have the name.
    """
    for name in (str, str.casefold):
        found = [column for column in source.columns if name(column.name) == name(requested)]
        if len(found) == 1:
            return found[0]
    numbered = [column for column in source.columns if str(column.field) == requested]
    if not found and numbered:
        return numbered[0]
    problem = f"{len(found)} columns have this name" if found else "no such column"
    names = ", ".join(column.name for column in source.columns)
    near = "" if found else suggest(requested, (column.name for column in source.columns))
    raise UserError(f"{setting}={requested}: {problem}; expected one of {names}{near}")


def cell_text(column: InputColumn, several_labels: bool) -> str:
    """Return the SQL of the cells of a column as text, in view `raw_input`; 1 for a number 1.0."""
    if column.role == "sequence":
        return "sequence"
    cell = f"cell_{column.field}" if column.field else "name"
    if column.role == "label" and not several_labels:
        cell = "expression"
    return rf"regexp_replace(trim({cell}::varchar), '{WHOLE_NUMBER}', '\1')"


def _cases(cell: str, values: Mapping[str, Sequence[str]], rest: str) -> str:
    cases = " ".join(
        f"when {cell} in ({', '.join(map(quoted_text, values[split]))}) then '{split}'"
        for split in SPLITS
        if values[split]
    )
    return f"case {cases} {rest} end"


def check_values(connection: duckdb.DuckDBPyConnection, given: GivenSplit, dataset: Dataset, valid_rows: str) -> None:
    """Raise UserError for values of no split, for values of the settings that no row has, and for a single value.

    valid_rows: SQL of a relation of the valid rows, with columns split_cell and given_split.
    """
    counts = rows_of(
        connection,
        f"select split_cell, given_split, count(*) from {valid_rows} where not is_missing_cell(split_cell) "
        "group by all order by 3 desc, 1",
    )
    unknown = [repr(value) for value, split, _ in counts if split is None]
    present = {value for value, _, _ in counts}
    absent = [repr(value) for value in given.listed if value not in present]
    if unknown or absent:
        problem = f"unknown {_list(unknown)}" if unknown else f"no row has the {_list(absent)} that the settings name"
        values = ", ".join(f"{value!r} ({format_count(count, 'row')})" for value, _, count in counts[:MOST_VALUES])
        more = f" and {len(counts) - MOST_VALUES:,} more" if len(counts) > MOST_VALUES else ""
        raise UserError(f"{given.title}: {problem}; its values are {values}{more}; {FIX_VALUES}")
    if len(counts) == 1 and given.title != FILES:
        ((value, split, count),) = counts
        if split != "train" or not dataset.valid_from_train:
            missing = "training" if split != "train" else "validation"
            fix = "dataset.valid_from_train=0.1, or " * (split == "train") + dataset.switch_split("random")
            raise UserError(
                f"{given.title}: no {missing} rows: all {format_count(count, 'row')} have the value {value!r}; "
                f"fix: {fix}"
            )


def _list(values: list[str]) -> str:
    more = f" and {len(values) - MOST_VALUES:,} more" if len(values) > MOST_VALUES else ""
    return f"value{'s' * (len(values) > 1)} {', '.join(values[:MOST_VALUES])}{more}"


def count_given_rows(connection: duckdb.DuckDBPyConnection, given: GivenSplit, dataset: Dataset) -> None:
    """Count the rows of each given split in view `usable`, as variables for the statements and the audit.

    given_rows: per split its rows and the sum of their hashes; given_test, given_valid and given_train: sizes. Raises
    UserError for a split without training or validation rows, and for a valid_from_train that leaves no training rows.
    """
    counts = rows_of(
        connection,
        "select given_split, count(*), sum(hash(sequence, expression))::varchar from usable group by all",
    )
    rows = {split: count for split, count, _ in counts}
    sizes = ", ".join(f"{split} {rows.get(split, 0):,}" for split in reversed(SPLITS))
    if counts and "train" not in rows:
        fix = "fix: --train FILE" if given.title == FILES else FIX_VALUES
        raise UserError(f"{given.title}: no training rows; got {sizes}; expected rows to train on; {fix}")
    if counts and "valid" not in rows and not dataset.valid_from_train:
        raise UserError(f"{given.title}: no validation rows, which training needs; got {sizes}; {FIX_VALID}")
    if "valid" in rows and dataset.valid_from_train:
        raise UserError(
            f"dataset.valid_from_train={dataset.valid_from_train:g}: {given.title} gives {rows['valid']:,} validation "
            "rows; fix: dataset.valid_from_train=0"
        )
    train = rows.get("train", 0)
    ((taken,),) = rows_of(connection, "select rows_of(?, ?)", [dataset.valid_from_train, train])
    if counts and taken >= train:
        raise UserError(
            f"dataset.valid_from_train={dataset.valid_from_train:g}: leaves none of the {train:,} training rows; "
            "expected fewer rows; fix: a fraction, such as dataset.valid_from_train=0.1"
        )
    set_variables(connection, {f"given_{split}": rows.get(split, 0) for split in SPLITS})
    names, numbers, sums = ([row[place] for row in counts] for place in range(3))
    connection.execute(
        "set variable given_rows = list_zip(?::varchar[], ?::bigint[], ?::varchar[])", [names, numbers, sums]
    )
