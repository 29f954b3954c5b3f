"""Results of later steps (shards, runs, predictions) in the dataset, so that SQL can join them."""

from pathlib import Path

import duckdb
import pyarrow as pa

from pipeline.dataset.database import explain, open_dataset, row_count, rows_of
from pipeline.errors import UserError

RESULTS = ("shards", "records", "runs", "metrics", "predictions")
"""The relations of sql/10_results.sql."""


def replace_rows(dataset: str, column: str, value: int | str, tables: dict[str, pa.Table]) -> None:
    """Replace the rows of relations where `column` has `value`, in one transaction. tables: new rows by relation.

    Raises UserError where the dataset was built by another version.
    """
    with open_dataset(dataset, read_only=False) as connection:
        try:
            connection.execute("begin")
            for table, rows in tables.items():
                connection.execute(f"delete from {table} where {column} = ?", [value])
                _insert(connection, table, rows)
            connection.execute("commit")
        except (duckdb.BinderException, duckdb.CatalogException):
            raise UserError(f"{dataset}: built by another version of promoter-bert; fix: build it again") from None
        except duckdb.Error as error:
            raise explain(error) from None


def carry_over(connection: duckdb.DuckDBPyConnection, target: Path) -> int:
    """Copy the results of the existing dataset into its rebuild; returns the number of runs left out.

    Results of a dataset with another key would join with other promoters: they are left out. So are those of a dataset
    of another version, whose key always differs.
    """
    key = "select key from dataset"
    try:
        with open_dataset(target) as existing:
            if rows_of(existing, key) != rows_of(connection, key):
                return row_count(existing, "runs")
            tables = {name: existing.sql(f"from {name}").to_arrow_table() for name in RESULTS}
    except (
        UserError,
        duckdb.CatalogException,
        duckdb.BinderException,
    ):  # it does not exist, or a build did not make it
        return 0
    for name, rows in tables.items():
        _insert(connection, name, rows)
    return 0


def _insert(connection: duckdb.DuckDBPyConnection, table: str, rows: pa.Table) -> None:
    connection.register("new_rows", rows)
    connection.execute(f"insert into {table} by name select * from new_rows")
    connection.unregister("new_rows")
