"""Rows of files as SQL sees them: the assay's rules, and the view `input` that builds and predictions read."""

from dataclasses import asdict
from typing import Any

import duckdb

from pipeline.config.schema import Assay
from pipeline.dataset.database import statement
from pipeline.dataset.input_format import Input


def set_variables(connection: duckdb.DuckDBPyConnection, values: dict[str, Any]) -> None:
    """What the statements of sql/ read with getvariable."""
    for name, value in values.items():
        connection.execute(f"set variable {name} = ?", [value])


def define_rules(connection: duckdb.DuckDBPyConnection, assay: Assay) -> None:
    """Create the rules for rows of an assay on a connection: repaired(sequence), sequence_problem(sequence), ..."""
    set_variables(connection, assay.model_dump(exclude={"flank"}))
    connection.execute(statement("01_rules.sql"))


def define_input(connection: duckdb.DuckDBPyConnection, assay: Assay, given: Input) -> None:
    """Create the rules for rows and view `input` (file, line, text, fields, sequence, expression, copy; and
    name where the input has a column of names)."""
    define_rules(connection, assay)
    settings: dict[str, Any] = {"input_files": given.files, "labelled": given.labelled, "skip_lines": 0, "columns": 2}
    if given.layout is None:
        columns: dict[str, str | None] = {
            "sequence_column": given.sequence_column,
            "expression_column": given.expression_column,
            "name_column": given.name_column,
        }
        set_variables(connection, settings | columns)
        connection.execute(statement(f"inputs/parquet{'' if given.labelled else '_unlabelled'}.sql"))
    else:
        layout = asdict(given.layout)
        kind = layout.pop("kind")
        set_variables(connection, settings | layout)
        connection.execute(statement(f"inputs/{kind}.sql"))
