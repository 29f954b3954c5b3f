"""Add the further columns of the input to view `input`: several labels, kept columns, the given split, the filter.

The statements of sql/ are written for rows of a sequence and one label. A comment in them, such as /* cells */, marks
where the further columns belong; BuildColumns.marks holds the SQL for each comment. Rows without further columns run
the statements as they are.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import duckdb

from pipeline.config.schema import Dataset
from pipeline.dataset.database import rows_of, statement
from pipeline.dataset.input.files import Input, InputColumn
from pipeline.dataset.input.view import set_variables
from pipeline.dataset.rows.cut_label import check_cut_label, steering_label
from pipeline.dataset.rows.filter import check_columns, checked_filter
from pipeline.dataset.rows.given_split import GivenSplit, check_values, find_given_split
from pipeline.dataset.rows.names import distinct_names, quoted, quoted_text

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
VALID = "reject_code(fields, sequence, expression, 1, rule := rule) is null"
PREFIX = "/"
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
    given: GivenSplit | None = None
    """The given split of the rows."""
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
    connection: duckdb.DuckDBPyConnection,
    source: Input,
    dataset: Dataset,
    labelled: bool,
    split_files: Mapping[str, Sequence[str]],
) -> BuildColumns:
    """Extend view `input` by the further columns of the input, and return them.

    A column of text becomes BIGINT or DOUBLE if all its cells are numbers or missing. All valid rows decide, so this
    reads the input before the build does. labelled: whether rows have labels; split_files: the files of each given
    split. Raises UserError for an invalid setting: dataset.where, dataset.cut_label, or values of a given split.
    """
    columns = name_columns(source)
    names = [column.name for column in columns.labels] or [_label_name(source)]
    set_variables(connection, {"labels": names if labelled else [], "several_labels": bool(columns.labels)})
    if labelled:
        check_cut_label(dataset.cut_label, names)
    given = find_given_split(source, dataset, split_files) if labelled else None
    if not columns.labels and not columns.kept and given is None and not dataset.where:
        return columns
    connection.execute(statement("inputs/cells.sql"))
    fields = dict.fromkeys(column.source.field for column in (*columns.labels, *columns.kept))
    define_raw_input(connection, source, fields)
    _define_typed_input(connection, columns, given)
    _define_filtered_input(connection, source, columns, dataset.where)
    valid_rows = f"(from filtered_input where {VALID})"
    if given is not None:
        check_values(connection, given, dataset, valid_rows)
    steering = "expression"
    if columns.labels:
        steering = steering_label(connection, columns.labels, dataset.cut_label, valid_rows)
    further = _list([*(column.code for column in (*columns.labels, *columns.kept)), "tie", "given_split"])
    connection.execute(
        "create or replace temp view input as "
        f"select {INPUT.replace('expression', f'{steering}::varchar as expression')}, rule, {further} "
        "from filtered_input"
    )
    return replace(columns, given=given, marks=_marks(columns, dataset, given))


def define_raw_input(connection: duckdb.DuckDBPyConnection, source: Input, fields: Iterable[int]) -> None:
    """Define view `raw_input`: view `input` with a column cell_N for each of the fields N, if the input is text."""
    connection.execute("alter view input rename to narrow_input")
    if source.layout is None or source.layout.kind == "fasta":
        connection.execute("create or replace temp view raw_input as from narrow_input")
        return
    connection.execute(CELLS_OF_TEXT)
    cells = _list(f"trim(cells[{field}]) as cell_{field}" for field in fields)
    connection.execute(f"create or replace temp view raw_input as select * exclude (cells), {cells} from all_cells")


def _define_typed_input(connection: duckdb.DuckDBPyConnection, columns: BuildColumns, given: GivenSplit | None) -> None:
    """Define view `typed_input`: `raw_input` with typed cells, the given split, and the code of the rule they break."""
    types = _find_types(connection, [column for column in columns.kept if column.source.is_text])
    kept = [f"{_typed(column.cell, types.get(column.code, ''))} as {column.code}" for column in columns.kept]
    labels = [f"label_of_cell({column.cell}) as {column.code}" for column in columns.labels]
    codes = ["null", *(f"label_code_of_cell({column.cell})" for column in columns.labels)]
    if columns.labels:
        codes.append(
            f"if({' and '.join(f'is_missing_cell({column.cell})' for column in columns.labels)}, 'no_label', null)"
        )
    split = "null as split_cell, null as given_split"
    if given is not None:
        split = f"{given.cell} as split_cell, {given.split} as given_split"
        codes.append("if(given_split is null and is_missing_cell(split_cell), 'no_split', null)")
    tie = f"hash({_list(column.code for column in columns.kept)})" if columns.kept else "0"
    connection.execute(
        f"create or replace temp view typed_input as select {_list([INPUT, *labels, *kept, split])}, "
        f"coalesce({_list(codes)}) as rule, {tie} as tie from raw_input"
    )


def _define_filtered_input(
    connection: duckdb.DuckDBPyConnection, source: Input, columns: BuildColumns, where: str
) -> None:
    """Define view `filtered_input`: `typed_input`, where rows that a filter excludes break the rule `filtered`."""
    if not where:
        connection.execute("create or replace temp view filtered_input as from typed_input")
        return
    # The filter sees the columns by their names in the input; those of the view have a prefix meanwhile.
    described = rows_of(connection, "select column_name from (describe typed_input)")
    own = [name for (name,) in described]
    codes = {column.source: column.code for column in (*columns.labels, *columns.kept)}
    values = {"sequence": "sequence", "label": "try_cast(expression as double)"}
    named: dict[str, str] = {}
    for column in source.columns:
        named.setdefault(column.name.casefold(), f"{codes.get(column) or values[column.role]} as {quoted(column.name)}")
    named.setdefault("sequence", "sequence as sequence")
    if source.labelled and not columns.labels:
        named.setdefault("expression", f"{values['label']} as expression")
    prefixed = _list(f"{name} as {quoted(PREFIX + name)}" for name in own)
    connection.execute(
        f"create or replace temp view named_input as select {prefixed}, {_list(named.values())} from typed_input"
    )
    names = {column.code: column.source.name for column in (*columns.labels, *columns.kept)}
    check_columns(connection, where, "named_input", PREFIX, names)
    rule = f"if(({checked_filter(where)})::boolean, {quoted(PREFIX + 'rule')}, 'filtered')"
    restored = _list(rule if name == "rule" else quoted(PREFIX + name) for name in own)
    connection.execute(
        f"create or replace temp view filtered_input({_list(own)}) as select {restored} from named_input"
    )


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
    valid = VALID.replace(", rule := rule", "")
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


def _marks(columns: BuildColumns, dataset: Dataset, given: GivenSplit | None) -> dict[str, str]:
    """Return the SQL for the comments that mark further columns in the statements of sql/."""
    labels = [column.code for column in columns.labels]
    kept = [column.code for column in columns.kept]
    named = [f"{column.code} as {quoted(column.name)}" for column in (*columns.labels, *columns.kept)]
    names = [quoted(column.name) for column in (*columns.labels, *columns.kept)]
    averages = dataset.duplicates == "average"
    group = "sequence, given_split" if given else "sequence"
    means = [f"list_avg(list_sort(list({label}) over (partition by {group}))) as mean_{label}" for label in labels]
    key = [f"labels {_list(column.name for column in columns.labels)}"] * bool(labels) + ["given"] * bool(given)
    mean = "getvariable('duplicates') = 'average' and copy = 1"
    rest = [f"if({mean}, mean_{label}, {label}) as {label}" for label in labels]
    return {
        "rule": ", rule := rule",
        "cells": _more([*labels, *kept, "tie", "given_split"]),
        "copied": _more([*labels, "tie", "given_split"]),
        "group": ", given_split" if given else "",
        "groups": "case given_split when 'test' then 0 when 'valid' then 1 else 2 end, " if given else "",
        "first": "tie, " if averages else "",
        "means": _more(means),
        "rest": _more([*rest, *kept, "rule", "tie", "given_split"]),
        "ties": _more([*labels, "tie"]),
        "columns": _more(named),
        "names": _more(names),
        "labels": _more(f"promoters.{quoted(column.name)}" for column in columns.labels),
        "key": _more(map(quoted_text, key)),
    }


def _label_name(source: Input) -> str:
    """Return the name of the one label in the input; `expression` if the input has no name for it."""
    if source.layout is None:
        return source.expression_column or "expression"
    return source.layout.expression_name or "expression"


def _list(parts: Iterable[str]) -> str:
    return ", ".join(parts)


def _more(parts: Iterable[str]) -> str:
    """Return parts of a select list that follow others."""
    return "".join(f", {part}" for part in parts)
