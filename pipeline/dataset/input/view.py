"""Define the assay's rules in SQL, and the view `input` that builds and predictions read."""

from dataclasses import asdict
from typing import Any

import duckdb

from pipeline.config.schema import Assay
from pipeline.dataset.database import explain, statement
from pipeline.dataset.input.files import Input


def set_variables(connection: duckdb.DuckDBPyConnection, values: dict[str, Any]) -> None:
    """Set the variables that the statements of sql/ read with getvariable."""
    for name, value in values.items():
        connection.execute(f'set variable "{name}" = ?', [value])


def define_rules(connection: duckdb.DuckDBPyConnection, assay: Assay) -> None:
    """Create the rules for rows of an assay on a connection: repaired(sequence), sequence_problem(sequence), ..."""
    set_variables(connection, {**assay.model_dump(exclude={"flank"}), "adapter_mismatches": assay.adapter_mismatches})
    connection.execute(statement("01_rules.sql"))
    if assay.white_space == "strip" or assay.adapter_mismatches:
        connection.execute(statement("01_optional_repairs.sql"))


def define_input(connection: duckdb.DuckDBPyConnection, assay: Assay, source: Input) -> None:
    """Create the rules for rows and view `input`: file, line, text, fields, sequence, expression, copy, name."""
    define_rules(connection, assay)
    layout = {"kind": "table", "columns": 2} if source.layout is None else asdict(source.layout)
    kind = layout.pop("kind")
    set_variables(connection, {"labelled": source.labelled, **layout})
    connection.register("source_rows", source.stream)
    connection.execute(statement(f"inputs/{kind}.sql"))


def input_error(source: Input, error: duckdb.Error) -> BaseException:
    """Find the cause of a failed statement over the view: the error of the input's stream, or DuckDB's error."""
    return (source.stream and source.stream.error) or explain(error)
