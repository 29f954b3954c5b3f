"""What the files of sql/queries answer, for pages: values by column."""

from typing import Any

import duckdb

from pipeline.dataset.database import explain, statement

Columns = dict[str, list[Any]]
"""What a query returned: values by column, in the order of the rows."""
DIGITS = 9
"""Decimals kept of a result: a mean's last ones depend on the order in which threads add up."""


def answer(connection: duckdb.DuckDBPyConnection, name: str) -> Columns:
    """Run sql/queries/NAME.sql. Raises UserError where the dataset is not one that it can be asked of."""
    try:
        result = connection.execute(statement(f"queries/{name}.sql"))
        columns = [column for column, *_ in result.description or ()]
        rows = result.fetchall()
    except duckdb.Error as error:
        raise explain(error) from None
    return {
        column: [round(row[place], DIGITS) if isinstance(row[place], float) else row[place] for row in rows]
        for place, column in enumerate(columns)
    }
