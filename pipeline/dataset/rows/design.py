"""Sequences from files of their own (a design), joined to the rows of view `input` by the names of the sequences."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import duckdb

from pipeline.config.schema import Assay
from pipeline.dataset.database import row_count, rows_of, statement
from pipeline.dataset.input.columns import Columns
from pipeline.dataset.input.files import Input, find_input
from pipeline.dataset.input.view import define_input, set_variables
from pipeline.errors import UserError


@dataclass(frozen=True)
class DesignCounts:
    """Counts of a join. without_row: sequences whose name no row has. Rows without a sequence are rejects."""

    sequences: int
    without_row: int


def find_design(names: Sequence[str], name_column: str) -> Input:
    """Find files of sequences with names: FASTA, or tables with a column of names. Raises UserError as find_input."""
    design = find_input(list(names), Columns(name=name_column), labelled=False, keep_columns=False)
    if design.layout is not None and design.layout.kind == "fasta":
        return replace(design, layout=replace(design.layout, name_field=1))
    return design


def load_design(connection: duckdb.DuckDBPyConnection, assay: Assay, design: Input) -> None:
    """Create temp table `designs`: the sequences by their names. Raises UserError for a name of two sequences."""
    define_input(connection, assay, design)
    connection.execute(statement("inputs/cells.sql"))
    connection.execute(
        "create temp table designs as select trim(name) as name, sequence from input where not is_missing_cell(name)"
    )
    repeated = rows_of(
        connection, "select name, count(*) from designs group by name having count(*) > 1 order by all limit 1"
    )
    for name, count in repeated:
        raise UserError(f"{', '.join(design.files)}: {count:,} sequences have the name {name!r}; expected one per name")


def join_design(connection: duckdb.DuckDBPyConnection) -> None:
    """Replace the names in column sequence of view `input` by the sequences of table `designs`; null without one.

    A join may change the order of the rows, which duplicates=first depends on: they are sorted once, into a table.
    """
    connection.execute("alter view input rename to input_of_names")
    connection.execute(
        "create temp table joined_input as "
        "with numbered as (select row_number() over () as place, * from input_of_names) "
        "select numbered.* exclude (place) replace (designs.sequence as sequence) "
        "from numbered left join designs on designs.name = trim(numbered.sequence) order by place"
    )
    connection.execute("create or replace temp view input as from joined_input")
    set_variables(connection, {"with_design": True})


def count_designs(connection: duckdb.DuckDBPyConnection) -> DesignCounts:
    """Count the sequences of a design, and those whose name no row of the input has."""
    without_row = "designs anti join input_of_names on designs.name = trim(input_of_names.sequence)"
    return DesignCounts(row_count(connection, "designs"), row_count(connection, without_row))
