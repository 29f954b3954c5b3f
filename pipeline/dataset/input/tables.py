"""Read tables with typed columns (Parquet, Arrow, JSON lines): their columns, and the cells of their rows as text."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.dataset.input.cells import Table
from pipeline.dataset.input.compression import absolute, decompressed_name, read_chunks
from pipeline.dataset.input.json_lines import json_batches, json_schema
from pipeline.dataset.input.stream import PLACE, RowStream, row_batch
from pipeline.errors import UserError

JSON_SUFFIXES = (".jsonl", ".ndjson")
CELL_SCHEMA = pa.schema([*PLACE, *((cell, pa.string()) for cell in ("sequence", "expression", "name"))])
BATCH_ROWS = 1 << 15
STREAM_END = b"\xff\xff\xff\xff\0\0\0\0"
"""Last bytes of the stream format of Arrow."""
NUMBER_TYPES = pa.types.is_floating, pa.types.is_integer, pa.types.is_decimal


def table_schema(file: str) -> pa.Schema:
    """Read the columns of a table. Raises UserError for an unreadable file, and for two columns of one name."""
    try:
        schema = _read_schema(file)
    except (OSError, pa.ArrowInvalid) as error:
        kind = "Parquet" if file.endswith(".parquet") else "Arrow"
        raise UserError(f"{file}: cannot be read as {kind}: {error}") from None
    if twice := sorted({name for name in schema.names if schema.names.count(name) > 1}):
        raise UserError(f"{file}: several columns are named {', '.join(twice)}; expected distinct names")
    if not schema.names:
        raise UserError(f"{file}: the table has no columns")
    return schema


def read_table_head(file: str, rows: int) -> Table:
    """Read the first rows of a table as text. A cell that is a list or struct becomes the name of its type.

    Raises UserError for a file that cannot be read.
    """
    schema = table_schema(file)
    flat = [field.name for field in schema if not pa.types.is_nested(field.type)]
    try:
        head = _first_rows(file, flat, rows)
    except (OSError, pa.ArrowInvalid) as error:
        raise UserError(f"{file}: cannot be read, corrupt or truncated: {error}; fix: copy it again") from None
    texts = {name: [_cell_text(cell) for batch in head for cell in batch[name].to_pylist()] for name in flat}
    count = sum(map(len, head))
    columns = [texts.get(field.name, [f"<{field.type}>"] * count) for field in schema]
    cells = [list(row) for row in zip(*columns, strict=True)]
    numbers = [number for number, field in enumerate(schema, 1) if any(test(field.type) for test in NUMBER_TYPES)]
    return Table(file, schema.names, cells, len(columns), frozenset(numbers))


def _first_rows(file: str, names: list[str], rows: int) -> list[pa.RecordBatch]:
    """Read batches until they hold enough rows: the first ones may be short or empty."""
    batches: list[pa.RecordBatch] = []
    for batch in table_batches(file, names):
        batches.append(batch.slice(0, rows))
        rows -= len(batches[-1])
        if rows <= 0:
            break
    return batches


def common_types(schemas: Sequence[pa.Schema]) -> dict[str, pa.DataType]:
    """Find one type for each column of several tables, in the order of their first appearance; text if types differ.

    A type that DuckDB or its files cannot hold becomes the nearest one that they can.
    """
    types: dict[str, pa.DataType] = {}
    for field in (field for schema in schemas for field in schema):
        known, new = types.get(field.name), _storable(field.type)
        types[field.name] = new if known is None else _common_type(known, new)
    return types


def _storable(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(kind):
        return _storable(kind.value_type)
    if pa.types.is_null(kind) or pa.types.is_decimal256(kind):
        return pa.string()
    if pa.types.is_float16(kind):
        return pa.float32()
    if pa.types.is_timestamp(kind):
        return pa.timestamp("us", kind.tz)
    return pa.time64("us") if pa.types.is_time64(kind) else kind


def _common_type(a: pa.DataType, b: pa.DataType) -> pa.DataType:
    if a == b:
        return a
    try:
        fields = [pa.schema([("x", kind)]) for kind in (a, b)]
        return pa.unify_schemas(fields, promote_options="permissive").field(0).type
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.string()


def table_files(
    files: list[str], columns: Sequence[str | None], cells: Mapping[str, tuple[str, pa.DataType]] | None = None
) -> RowStream:
    """Stream the cells of three columns, as text. Each file is read with its own types.

    columns: the names of the columns sequence, expression and name; None for a column that is not read. cells: further
    columns of the stream, each with its column of the files and its type; null where a file lacks it. A corrupt file,
    and a column of lists or structures as one of the three, end the scan with a UserError.
    """
    cells = cells or {}
    schema = pa.schema([*CELL_SCHEMA, *((name, kind) for name, (_, kind) in cells.items())])
    return RowStream(schema, lambda: (rows for file in files for rows in _cells(file, columns, schema, cells)))


def table_batches(file: str, names: list[str]) -> Iterator[pa.RecordBatch]:
    """Read the rows of a table, with at least the named columns; JSON lines as text.

    Raises OSError or ArrowInvalid for a corrupt file, and UserError for JSON lines that are invalid.
    """
    if decompressed_name(file).endswith(JSON_SUFFIXES):
        yield from json_batches(file, read_chunks(file), names)
    elif file.endswith(".parquet"):
        import pyarrow.parquet as pq

        with pq.ParquetFile(absolute(file)) as parquet:
            yield from parquet.iter_batches(BATCH_ROWS, columns=names)
    else:
        with _open_arrow(file) as reader:
            yield from _arrow_batches(reader)


def table_row_count(file: str) -> int | None:
    """Read the number of rows from the metadata of a file; None for JSON lines."""
    if file.endswith(".parquet"):
        import pyarrow.parquet as pq

        return int(pq.read_metadata(absolute(file)).num_rows)
    if file.endswith(".arrow"):
        with _open_arrow(file) as reader:
            return sum(len(batch) for batch in _arrow_batches(reader))
    return None


def saved_dataset_files(folder: Path) -> list[str]:
    """List the Arrow files of a folder that save_to_disk of Hugging Face datasets wrote; empty for another folder.

    Raises UserError for the folder of several splits, and for rows selected by an index file.
    """
    splits, state = folder / "dataset_dict.json", folder / "state.json"
    try:
        if splits.is_file():
            names = json.loads(splits.read_bytes())["splits"]
            raise UserError(
                f"{folder}: holds the splits {', '.join(names)}; fix: name one, such as {folder / names[0]}"
            )
        if not state.is_file():
            return []
        values = json.loads(state.read_bytes())
        if values.get("_indices_data_files"):
            raise UserError(f"{folder}: rows selected by an index; fix: flatten_indices() before save_to_disk")
        return [str(folder / Path(file["filename"]).name) for file in values["_data_files"]]
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(f"{folder}: not as save_to_disk writes it: {error!r}") from None


def _read_schema(file: str) -> pa.Schema:
    if decompressed_name(file).endswith(JSON_SUFFIXES):
        return json_schema(file, read_chunks(file))
    if file.endswith(".parquet"):
        import pyarrow.parquet as pq

        return pq.read_schema(absolute(file))
    with _open_arrow(file) as reader:
        return reader.schema


def _cell_text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return "" if value is None else str(value)


def _cells(
    file: str, columns: Sequence[str | None], schema: pa.Schema, cells: Mapping[str, tuple[str, pa.DataType]]
) -> Iterator[pa.RecordBatch]:
    line = 1
    present = set(table_schema(file).names) if cells else set()
    further = [(column if column in present else None, kind) for column, kind in cells.values()]
    read = [*columns, *(column for column, _ in further)]
    names = list(dict.fromkeys(name for name in read if name is not None))  # a name may be empty
    try:
        for batch in table_batches(file, names):
            sequence, expression, name = (_as_text(file, column, batch) for column in columns)
            if columns[-1] is not None and pa.types.is_floating(batch.column(columns[-1]).type):
                name = pc.replace_substring_regex(name, r"^(-?\d+)$", r"\1.0")  # Arrow writes 3 for 3.0
            values = [_as_type(file, column, kind, batch) for column, kind in further]
            lines = pa.array(np.arange(line, line + len(batch)))
            yield row_batch(schema, file, [lines, sequence, expression, name, *values])
            line += len(batch)
    except (OSError, pa.ArrowInvalid) as error:
        raise UserError(f"{file}: cannot be read, corrupt or truncated: {error}; fix: copy it again") from None


def _as_type(file: str, name: str | None, kind: pa.DataType, batch: pa.RecordBatch) -> pa.Array:
    """Convert a column to a type; null for a column that the file lacks."""
    if name is None:
        return pa.nulls(len(batch), kind)
    try:
        return batch.column(name).cast(kind, safe=False)
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        found = batch.column(name).type
        raise UserError(f"{file}: column {name} holds {found}, which cannot become {kind}; fix: omit it") from None


def _open_arrow(file: str) -> Any:
    """Open the file format of Arrow (Feather), or its stream format, which save_to_disk writes."""
    try:
        return pa.ipc.open_file(pa.memory_map(file))
    except pa.ArrowInvalid:
        stream = pa.ipc.open_stream(pa.memory_map(file))
    with Path(file).open("rb") as data:
        data.seek(-len(STREAM_END), os.SEEK_END)
        if data.read() != STREAM_END:  # a writer that was killed leaves whole batches
            raise OSError("the stream has no end mark")
    return stream


def _arrow_batches(reader: Any) -> Iterator[pa.RecordBatch]:
    if isinstance(reader, pa.ipc.RecordBatchFileReader):
        return map(reader.get_batch, range(reader.num_record_batches))
    return iter(reader)


def _as_text(file: str, name: str | None, batch: pa.RecordBatch) -> pa.Array:
    """Convert a column to text; null for a column that is not read."""
    if name is None:
        return pa.nulls(len(batch), pa.string())
    column = batch.column(name)
    try:
        text = column.cast(pa.string())
    except pa.ArrowNotImplementedError:
        raise UserError(f"{file}: column {name} holds {column.type}; expected text or numbers") from None
    return text
