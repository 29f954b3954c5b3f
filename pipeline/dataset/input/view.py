"""Rows as SQL sees them: the assay's rules, and the view `input` that builds and predictions read."""

from dataclasses import asdict
from typing import Any

import duckdb

from pipeline.config.schema import Assay
from pipeline.dataset.database import explain, statement
from pipeline.dataset.input.files import Input


def set_variables(connection: duckdb.DuckDBPyConnection, values: dict[str, Any]) -> None:
    """Set what the statements of sql/ read with getvariable."""
    for name, value in values.items():
        connection.execute(f"set variable {name} = ?", [value])


def define_rules(connection: duckdb.DuckDBPyConnection, assay: Assay) -> None:
    """Create the rules for rows of an assay on a connection: repaired(sequence), sequence_problem(sequence), ..."""
    set_variables(connection, assay.model_dump(exclude={"flank"}))
    connection.execute(statement("01_rules.sql"))


def define_input(connection: duckdb.DuckDBPyConnection, assay: Assay, source: Input) -> None:
    """Create the rules for rows and view `input` (file, line, text, fields, sequence, expression, copy; and
    name where the input has a column of names)."""
    define_rules(connection, assay)
    settings: dict[str, Any] = {"input_files": source.files, "labelled": source.labelled, "skip_lines": 0, "columns": 2}
    if source.layout is None:
        columns: dict[str, str | None] = {
            "sequence_column": source.sequence_column,
            "expression_column": source.expression_column,
            "name_column": source.name_column,
        }
        set_variables(connection, settings | columns)
        connection.execute(statement(f"inputs/parquet{'' if source.labelled else '_unlabelled'}.sql"))
        return
    layout = asdict(source.layout)
    kind = layout.pop("kind")
    set_variables(connection, settings | layout)
    if source.stream is not None:
        connection.register("source_rows", source.stream)
    else:
        connection.execute(statement("inputs/lines.sql"))
    connection.execute(statement(f"inputs/{kind}.sql"))


def input_error(source: Input, error: duckdb.Error) -> BaseException:
    """What made a statement over the view fail: the error of the input's stream, or DuckDB's own, explained."""
    if source.stream is not None and source.stream.error is not None:
        return source.stream.error
    return explain(error)
