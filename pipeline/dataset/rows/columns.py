"""Add the further columns of the input to view `input`: several labels, kept columns, the given split, the filter.

The statements of sql/ are written for rows of a sequence and one label. A comment in them, such as /* cells */, marks
where the further columns belong; BuildColumns.marks holds the SQL for each comment. Rows without further columns run
the statements as they are.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction

import duckdb

from pipeline.config.schema import Dataset
from pipeline.dataset.database import rows_of, statement
from pipeline.dataset.input.files import Input, InputColumn
from pipeline.dataset.input.view import set_variables
from pipeline.dataset.rows.names import distinct_names, quoted, quoted_text
from pipeline.errors import UserError

CELLS_OF_TEXT = """
create or replace temp view all_cells as
select
    *,
    if(
        getvariable('quoted') or contains(text, '"'),
        list_transform(quoted_fields(text, getvariable('delimiter')), lambda cell: unquoted(cell)),
        string_split(text, getvariable('delimiter'))
    ) as cells
from narrow_input
"""
HIGHEST = "max"
"""dataset.cut_label: the highest of the standardized labels."""
SCALE = 1 << 40
"""Steps of a label in sums of integers: squares of 10^7 rows fit into 128 bits."""
INPUT = "file, line, text, fields, sequence, expression, copy, name"
"""The columns of view `input` for rows of a sequence and one label."""


@dataclass(frozen=True)
class BuildColumn:
    """A further column of a build. name: in `promoters`; code: in view `input`; source: its column of the input."""

    name: str
    code: str
    source: InputColumn

    @property
    def cell(self) -> str:
        """Return the SQL of its cell in view `raw_input`."""
        return f"cell_{self.source.field}" if self.source.field else "name"


@dataclass(frozen=True)
class BuildColumns:
    """The further columns of a build. labels: empty for one label, which is column expression."""

    labels: tuple[BuildColumn, ...] = ()
    kept: tuple[BuildColumn, ...] = ()
    marks: dict[str, str] = field(default_factory=dict)
    """SQL by the name of the comment that it replaces."""

    @property
    def renamed(self) -> dict[str, str]:
        """Return the names of columns that another name stands for, because theirs is taken."""
        columns = (*self.labels, *self.kept)
        return {column.source.name: column.name for column in columns if column.source.name != column.name}


def name_columns(source: Input) -> BuildColumns:
    """Name the further columns of an input in `promoters`."""
    labels = source.label_columns if len(source.label_columns) > 1 else ()
    kept = source.kept_columns
    names = distinct_names([column.name for column in (*labels, *kept)])
    codes = [*(f"label_{n}" for n in range(1, len(labels) + 1)), *(f"kept_{n}" for n in range(1, len(kept) + 1))]
    columns = tuple(map(BuildColumn, names, codes, (*labels, *kept)))
    return BuildColumns(columns[: len(labels)], columns[len(labels) :])


def define_columns(
    connection: duckdb.DuckDBPyConnection, source: Input, dataset: Dataset, labelled: bool
) -> BuildColumns:
    """Extend view `input` by the further columns of the input, and return them. labelled: whether rows have labels.

    A column of text becomes BIGINT or DOUBLE if all its cells are numbers or missing. All valid rows decide, so this
    reads the input once. Raises UserError for a cut label that is none of the labels.
    """
    columns = name_columns(source)
    names = [column.name for column in columns.labels] or [_label_name(source)]
    set_variables(connection, {"labels": names if labelled else [], "several_labels": bool(columns.labels)})
    _check_cut_label(dataset.cut_label, names)
    if not columns.labels and not columns.kept:
        return columns
    connection.execute(statement("inputs/cells.sql"))
    connection.execute("alter view input rename to narrow_input")
    _define_raw_input(connection, source, columns)
    types = _find_types(connection, [column for column in columns.kept if column.source.is_text])
    typed = [f"{_typed(column.cell, types.get(column.code, ''))} as {column.code}" for column in columns.kept]
    labels = [f"label_of_cell({column.cell}) as {column.code}" for column in columns.labels]
    rules, steering = "null", "expression"
    if columns.labels:
        codes = ", ".join(f"label_code_of_cell({column.cell})" for column in columns.labels)
        values = ", ".join(column.code for column in columns.labels)
        rules = f"coalesce({codes}, if(coalesce({values}) is null, 'no_label', null))"
        steering = f"{_steering(connection, columns.labels, dataset.cut_label)}::varchar"
    tie = f"hash({_list(column.code for column in columns.kept)})" if columns.kept else "0"
    connection.execute(
        f"create or replace temp view input as "
        f"with typed as (select * exclude (copy), {_list([*labels, *typed])} from raw_input) "
        f"select {INPUT.replace('expression', f'{steering} as expression').replace('copy', '1 as copy')}, "
        f"{rules} as rule, {_list(column.code for column in (*columns.labels, *columns.kept))}, {tie} as tie from typed"
    )
    return BuildColumns(columns.labels, columns.kept, _marks(columns, dataset))


def _define_raw_input(connection: duckdb.DuckDBPyConnection, source: Input, columns: BuildColumns) -> None:
    """Define view `raw_input`: view `input` of one label, with a column of cells for each further column."""
    if source.layout is None or source.layout.kind == "fasta":
        connection.execute("create or replace temp view raw_input as from narrow_input")
        return
    connection.execute(CELLS_OF_TEXT)
    fields = {column.source.field: column.cell for column in (*columns.labels, *columns.kept)}
    cells = _list(f"trim(cells[{number}]) as {cell}" for number, cell in fields.items())
    connection.execute(f"create or replace temp view raw_input as select * exclude (cells), {cells} from all_cells")


def _find_types(connection: duckdb.DuckDBPyConnection, columns: list[BuildColumn]) -> dict[str, str]:
    """Find the type of each column of text: BIGINT, DOUBLE or VARCHAR, by the cells of all valid rows."""
    if not columns:
        return {}
    tests = _list(
        f"count(*) filter (not is_missing_cell({cell})), "
        f"bool_and(is_missing_cell({cell}) or is_whole_cell({cell})), "
        f"bool_and(is_missing_cell({cell}) or is_number_cell({cell}))"
        for cell in (column.cell for column in columns)
    )
    valid = "reject_code(fields, sequence, expression, 1) is null"
    ((*results,),) = rows_of(connection, f"select {tests} from raw_input where {valid}")
    by_column = zip(columns, results[::3], results[1::3], results[2::3], strict=True)
    return {
        column.code: "bigint" if count and whole else "double" if count and number else "varchar"
        for column, count, whole, number in by_column
    }


def _typed(cell: str, kind: str) -> str:
    """Return the SQL of a cell with its type. Empty cells of text are null, as in other readers of tables."""
    if kind in ("bigint", "double"):
        return f"if(is_missing_cell({cell}), null, try_cast({cell} as {kind}))"
    return f"nullif({cell}, '')" if kind == "varchar" else cell


def _marks(columns: BuildColumns, dataset: Dataset) -> dict[str, str]:
    """Return the SQL for the comments that mark further columns in the statements of sql/."""
    labels = [column.code for column in columns.labels]
    kept = [column.code for column in columns.kept]
    named = [f"{column.code} as {quoted(column.name)}" for column in (*columns.labels, *columns.kept)]
    names = [quoted(column.name) for column in (*columns.labels, *columns.kept)]
    averages = dataset.duplicates == "average"
    means = [f"list_avg(list_sort(list({label}) over (partition by sequence))) as mean_{label}" for label in labels]
    mean = "getvariable('duplicates') = 'average' and copy = 1"
    rest = [f"if({mean}, mean_{label}, {label}) as {label}" for label in labels]
    return {
        "rule": ", rule := rule",
        "cells": _more([*labels, *kept, "tie"]),
        "copied": _more([*labels, "tie"]),
        "first": "tie, " if averages else "",
        "means": _more(means),
        "rest": _more([*rest, *kept, "rule", "tie"]),
        "ties": _more([*labels, "tie"]),
        "columns": _more(named),
        "names": _more(names),
        "labels": _more(f"promoters.{quoted(column.name)}" for column in columns.labels),
        "key": _more([quoted_text(f"labels {_list(column.name for column in columns.labels)}")] * bool(labels)),
    }


def _label_name(source: Input) -> str:
    """Return the name of the one label in the input; `expression` if the input has no name for it."""
    if source.layout is None:
        return source.expression_column or "expression"
    return source.layout.expression_name or "expression"


def _check_cut_label(cut_label: str, names: list[str]) -> None:
    if cut_label not in ("", HIGHEST, *names):
        expected = f"{HIGHEST} or one of {', '.join(names)}"
        raise UserError(f"dataset.cut_label={cut_label}: no such label; expected {expected}; fix: name it as written")


def _steering(connection: duckdb.DuckDBPyConnection, labels: tuple[BuildColumn, ...], cut_label: str) -> str:
    """Return the SQL of column expression for several labels: one of them, or the highest standardized one."""
    if cut_label != HIGHEST:
        return next((column.code for column in labels if column.name == cut_label), labels[0].code)
    connection.execute(
        f"create or replace temp view labels_of_rows as select * exclude (expression), "
        f"{_list(f'label_of_cell({column.cell}) as {column.code}' for column in labels)}, null as expression "
        "from raw_input"
    )
    valid = "reject_code(fields, sequence, expression, 1) is null"
    moments = [_moments(connection, column.code, valid) for column in labels]
    scaled = (f"({column.code} - {mean!r}) / {sd!r}" for column, (mean, sd) in zip(labels, moments, strict=True))
    return f"greatest({_list(scaled)})"


def _moments(connection: duckdb.DuckDBPyConnection, label: str, valid: str) -> tuple[float, float]:
    """Compute mean and standard deviation of a label over valid rows in integers: equal for any order of the rows."""
    inside = f"{label} between getvariable('min_expression') and getvariable('max_expression')"
    ((count, largest),) = rows_of(
        connection, f"select count({label}), max(abs({label})) from labels_of_rows where {valid} and {inside}"
    )
    if not count or not largest:
        return 0.0, 1.0
    scaled = f"round({label} / {largest!r} * {SCALE})::hugeint"
    ((total, squares),) = rows_of(
        connection,
        f"select sum({scaled})::varchar, sum({scaled} * {scaled})::varchar from labels_of_rows where {valid} and {inside}",
    )
    mean = Fraction(int(total), count)
    variance = Fraction(int(squares), count) - mean**2
    unit = float(largest) / SCALE
    return float(mean) * unit, max(float(variance) ** 0.5 * unit, 1e-300) if variance else 1.0


def _list(parts: Iterable[str]) -> str:
    return ", ".join(parts)


def _more(parts: Iterable[str]) -> str:
    """Return parts of a select list that follow others."""
    return "".join(f", {part}" for part in parts)
