"""SQL over the dataset, read-only."""

from pathlib import Path

import duckdb
import pyarrow as pa

from pipeline.database import reading
from pipeline.errors import UserError


def query_table(dataset: str, sql: str) -> pa.Table:
    """The result of one statement, or of a .sql file that holds one."""
    with reading(dataset) as connection:
        return _relation(connection, sql).to_arrow_table()


def query_text(dataset: str, sql: str, rows: int) -> str:
    """The result drawn as DuckDB draws it, at most `rows` of it."""
    with reading(dataset) as connection:
        relation = _relation(connection, sql)
        return str(relation.limit(rows))


def _relation(connection: duckdb.DuckDBPyConnection, sql: str) -> duckdb.DuckDBPyRelation:
    if sql.endswith(".sql") and "\n" not in sql:
        try:
            sql = Path(sql).read_text(encoding="utf-8")
        except OSError as error:
            raise UserError(f"{sql}: {error.strerror}") from None
    try:
        relation = connection.sql(sql)
    except duckdb.Error as error:
        raise UserError(str(error).strip()) from None
    if relation is None:
        raise UserError("the statement returns no rows; the dataset is opened read-only, so expected a select")
    return relation
