"""Read the column names and first rows of a Parquet file, from which its columns are chosen as those of text are."""

from typing import Any

import pyarrow as pa

from pipeline.dataset.input.cells import Table
from pipeline.errors import UserError

NUMBERS = pa.types.is_floating, pa.types.is_integer, pa.types.is_decimal


def read_parquet_head(file: str, rows: int) -> Table:
    """Read the first rows of a Parquet file as text. A cell of a list or struct is the name of its type.

    Raises UserError for a file that cannot be read as Parquet.
    """
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as parquet:
            schema = parquet.schema_arrow
            flat = [field.name for field in schema if not pa.types.is_nested(field.type)]
            batch = next(parquet.iter_batches(rows, columns=flat, use_threads=False), None)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{file}: cannot be read as Parquet: {error}") from None
    count = 0 if batch is None else batch.num_rows
    texts = {name: [_text(value) for value in batch[name].to_pylist()] for name in flat} if batch is not None else {}
    columns = [texts.get(field.name, [f"<{field.type}>"] * count) for field in schema]
    cells = [list(row) for row in zip(*columns, strict=True)]
    numbers = frozenset(number for number, field in enumerate(schema, 1) if any(test(field.type) for test in NUMBERS))
    return Table(file, schema.names, cells, len(columns), numbers)


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return "" if value is None else str(value)
