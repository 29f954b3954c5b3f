"""Query the dataset read-only, and write the result as a table, CSV, TSV, JSON or Parquet."""

import json
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, BinaryIO

import duckdb
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from pipeline.dataset.database import explain, open_dataset, rows_of, statement
from pipeline.dataset.rows.names import quoted
from pipeline.errors import UserError
from pipeline.io.atomic import expect_folder, new_file
from pipeline.paths import SQL, looked_in, shipped, suggest
from pipeline.runtime.text import escape_controls

FORMATS = ("table", "csv", "tsv", "json", "parquet")
WRITING = (duckdb.StatementType.COPY, duckdb.StatementType.EXPORT, duckdb.StatementType.ATTACH)
"""Statements that could write files even if the dataset is read-only."""
READS_FILE = re.compile(r"\bread_\w+\s*\(", re.IGNORECASE)
NAMES_FILE = re.compile(rf"{READS_FILE.pattern}|\b(from|join)\s*\(*\s*'|,\s*'", re.IGNORECASE)
"""A select that may read files, by a function or by their names in quotes."""
ANY_WIDTH = 100_000
"""Characters per line of a table that is not cut."""
READ_ROWS = 100_000
"""Rows per batch while a result is written."""
DIGITS = 9
"""Decimals that `answer` keeps. Further decimals of a mean depend on the order of the sum over threads."""
OLDER = """
create temp view predictions as select *, null::varchar as label from {database}.predictions;
create temp view measurements as select id, null::varchar as label, expression from {database}.promoters
"""
"""Relations of a dataset of one label that an earlier version built, as queries of predictions read them."""

RELATIONS = "select distinct table_name from information_schema.tables order by all"

Columns = dict[str, list[Any]]
"""A query result: the values of each column, in the order of the rows."""


def run_query(
    dataset: str, sql: str, form: str, output: Path | None = None, rows: int = 40, build_command: str = ""
) -> int | None:
    """Run a select, a query of sql/queries by its name, or a .sql file, and write its result in one of FORMATS.

    A select that reads files only through functions such as read_json('runs/*/metrics.jsonl') needs no dataset.
    A table shows at most `rows` rows, and a wide one is vertical on a terminal; other formats hold all rows.
    output: written atomically; None: standard output. build_command: builds the dataset; shown if there is none.
    Returns the number of rows written, None for a table. Raises UserError if the statement fails or is not a select,
    and if the output cannot be written.
    """
    if form == "parquet" and output is None:
        raise UserError("Parquet cannot be printed; fix: give an output file: -o result.parquet")
    sql = read_query(sql)
    if output is not None:
        expect_folder(output)
    needs_dataset = Path(dataset).exists() or not _reads_files_only(sql)
    with ExitStack() as files:
        other_files = NAMES_FILE.search(sql) is not None
        connection = files.enter_context(
            open_dataset(dataset, other_files=other_files, build_command=build_command)
            if needs_dataset
            else duckdb.connect()
        )
        if needs_dataset:
            add_missing_relations(connection)
        relation = _relation(connection, sql)
        try:
            if form == "table":
                show_table(relation, rows)
                return None
            sink: BinaryIO = sys.stdout.buffer
            if output is not None:
                sink = files.enter_context(files.enter_context(new_file(output)).open("wb"))
            return _write(relation.to_arrow_reader(READ_ROWS), form, sink)
        except duckdb.Error as error:
            raise explain(error) from None


def read_query(text: str) -> str:
    """Return the SQL of a query by its name, such as splits, or of a .sql file; other text is returned as it is.

    Paths that exist only in the project, such as sql/queries/splits.sql, are read there. Raises UserError for an
    unknown name and for a file that cannot be read.
    """
    if re.fullmatch(r"\w+", text):
        if text not in query_names():
            raise UserError(f"{text}: no such query; expected a select, a .sql file, or {', '.join(query_names())}")
        return statement(f"queries/{text}.sql")
    if not text.endswith(".sql") or "\n" in text:
        return text
    try:
        return shipped(text).read_text(encoding="utf-8")
    except OSError as error:
        names = f"; names of queries: {', '.join(query_names())}"
        raise UserError(f"{text}: {error.strerror}{looked_in(text)}{names}") from None


def query_names() -> list[str]:
    """List the names of the queries in sql/queries."""
    return sorted(path.stem for path in (SQL / "queries").glob("*.sql"))


def answer(connection: duckdb.DuckDBPyConnection, name: str) -> Columns:
    """Run sql/queries/NAME.sql. Raises UserError if the dataset lacks a relation or column that the query reads."""
    try:
        add_missing_relations(connection)
        result = connection.execute(statement(f"queries/{name}.sql"))
        columns = [column for column, *_ in result.description or ()]
        rows = result.fetchall()
    except duckdb.Error as error:
        raise explain(error) from None
    return {
        column: [round(row[place], DIGITS) if isinstance(row[place], float) else row[place] for row in rows]
        for place, column in enumerate(columns)
    }


def add_missing_relations(connection: duckdb.DuckDBPyConnection) -> None:
    """Define what queries of predictions need but datasets of earlier versions lack, for this connection only."""
    relations = {name for (name,) in rows_of(connection, "select table_name from information_schema.tables")}
    if "predictions" in relations and "measurements" not in relations:
        ((database,),) = rows_of(connection, "select current_database()")
        connection.execute(OLDER.format(database=quoted(database)))


def format_of(output: Path) -> str:
    """Derive the format from the ending of a file's name. Raises UserError for another ending."""
    form = output.suffix.removeprefix(".")
    if form not in FORMATS[1:]:
        raise UserError(f"{output}: expected a name ending in .csv, .tsv, .json or .parquet")
    return form


def show_table(relation: duckdb.DuckDBPyRelation, rows: int) -> None:
    """Print at most `rows` rows as a table; on a terminal that is too narrow for it, one line per value."""
    if not sys.stdout.isatty():
        relation.show(max_rows=rows, max_width=ANY_WIDTH)
        return
    with redirect_stdout(StringIO()) as table:
        relation.show(max_rows=rows, max_width=ANY_WIDTH)
    text = table.getvalue()
    if max(map(len, text.splitlines()), default=0) > shutil.get_terminal_size().columns:
        text = "".join(f"{line}\n" for line in _format_vertically(relation, rows))
    sys.stdout.write(text)


def _format_vertically(relation: duckdb.DuckDBPyRelation, rows: int) -> Iterator[str]:
    """Format each row as lines of a column and its value."""
    width = max(map(len, relation.columns))
    for number, row in enumerate(relation.limit(rows + 1).fetchall(), 1):
        if number > rows:
            yield f"more rows: --rows, at present {rows}"
            return
        yield f"row {number}"
        for name, value in zip(relation.columns, row, strict=True):
            yield escape_controls(f"  {name:{width}}  {'NULL' if value is None else value}")


def _write(rows: pa.RecordBatchReader, form: str, sink: BinaryIO) -> int:
    if form == "json":
        return _write_json(rows, sink)
    if form == "parquet":
        writer: Any = pa.parquet.ParquetWriter(sink, rows.schema, compression="snappy")
    else:
        options = pa.csv.WriteOptions(delimiter="\t" if form == "tsv" else ",", quoting_style="needed")
        writer = pa.csv.CSVWriter(sink, rows.schema, write_options=options)
    written = 0
    with writer:
        for batch in rows:
            writer.write_batch(batch)
            written += batch.num_rows
    return written


def _write_json(rows: pa.RecordBatchReader, sink: BinaryIO) -> int:
    """Write an array with one object per line."""
    before, written = "[\n", 0
    for batch in rows:
        written += batch.num_rows
        for row in batch.to_pylist():
            sink.write((before + json.dumps(row, default=str)).encode())
            before = ",\n"
    sink.write(b"[]\n" if before == "[\n" else b"\n]\n")
    sink.flush()
    return written


def _reads_files_only(sql: str) -> bool:
    with duckdb.connect() as connection:
        try:
            return READS_FILE.search(sql) is not None and not connection.get_table_names(sql)
        except duckdb.IOException:  # a missing file is reported when it is read
            return True
        except duckdb.Error:  # other errors are reported by the query itself
            return False


def _relation(connection: duckdb.DuckDBPyConnection, sql: str) -> duckdb.DuckDBPyRelation:
    try:
        statements = duckdb.extract_statements(sql)
        if len(statements) != 1:
            raise UserError(f"expected one statement, got {len(statements)}")
        if statements[0].type in WRITING:
            raise UserError("the dataset is read-only; expected a select; fix: for a file of the result, -o NAME.csv")
        relation = connection.sql(sql)
    except duckdb.CatalogException as error:
        raise _unknown_relation(connection, sql) or UserError(str(error).strip()) from None
    except duckdb.Error as error:
        place = f"; relative paths start in {Path.cwd()}" if isinstance(error, duckdb.IOException) else ""
        raise UserError(f"{str(error).strip()}{place}") from None
    if relation is None:
        raise UserError("the statement returns no rows; the dataset is read-only; expected a select")
    return relation


def _unknown_relation(connection: duckdb.DuckDBPyConnection, sql: str) -> UserError | None:
    """Make the error for the first relation of a query that does not exist; None if all exist.

    DuckDB's own error suggests names of its internal tables.
    """
    try:
        names = sorted(connection.get_table_names(sql))
    except duckdb.Error:  # an unknown function, for example
        return None
    internal = {name for (name,) in rows_of(connection, "select view_name from duckdb_views() where internal")}
    relations = [name for (name,) in rows_of(connection, RELATIONS)]
    known = {name.casefold() for name in (*internal, *relations)}
    for name in names:
        if name.casefold() not in known and re.fullmatch(r"\w+", name):
            expected = ", ".join(relations) or "none, as no dataset is open"
            return UserError(f"{name}: no such relation; expected one of {expected}{suggest(name, relations)}")
    return None
