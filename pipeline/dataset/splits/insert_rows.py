"""Read the inserts of a dataset for the search of near-duplicates, and set the memory of the search."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from pipeline.dataset.database import memory_limit_bytes, rows_of
from pipeline.near_duplicates.search import Batches
from pipeline.near_duplicates.spill import Workspace

READ_ROWS = 1 << 16
"""Rows per batch."""
MAX_WORKSPACE_BYTES = 1 << 30
"""A larger workspace is not faster."""


def read_inserts(connection: duckdb.DuckDBPyConnection, query: str) -> Batches:
    """Read row numbers and inserts by a query that sorts them by length."""
    for batch in connection.sql(query).to_arrow_reader(READ_ROWS):
        yield batch.column(0).to_numpy(), batch.column(1)


@contextmanager
def reserve_workspace(connection: duckdb.DuckDBPyConnection) -> Iterator[Workspace]:
    """Divide the memory limit of a connection: a quarter for a search, at most 1 GiB, and DuckDB two quarters less.

    The last quarter is for the fixed memory per row. Temporary files go to the folder of the database if it is
    writable, else to that of the system.
    """
    ((temporary,),) = rows_of(connection, "select current_setting('temp_directory')")
    limit = memory_limit_bytes(connection)
    folder = Path(temporary).parent
    writable = os.access(folder, os.W_OK)
    workspace = Workspace(min(limit // 4, MAX_WORKSPACE_BYTES), folder if writable else None)
    connection.execute(f"set memory_limit = '{limit - 2 * workspace.memory_bytes}B'")
    try:
        yield workspace
    finally:
        connection.execute(f"set memory_limit = '{limit}B'")
