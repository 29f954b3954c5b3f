"""Read JSON lines: one object per line, whose keys are the columns of a table."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa

from pipeline.dataset.input.cells import HEAD_LINES
from pipeline.dataset.input.lines import expect_utf8, text_blocks
from pipeline.errors import UserError
from pipeline.runtime.text import shorten


def json_schema(name: str, chunks: Iterable[bytes]) -> pa.Schema:
    """List the columns, which are the keys of all lines, and infer their types from the first lines.

    Raises UserError for a line that is no JSON object, and for a key that an object holds twice.
    """
    values: dict[str, list[Any]] = {}
    for block in text_blocks(name, chunks):
        lines = block.data.decode(errors="replace").split("\n")[:-1]
        for line, text in enumerate(lines, block.first_line):
            for key, value in _object(name, line, text).items():
                if line <= HEAD_LINES or key not in values:
                    values.setdefault(key, []).append(value)
    if not values:
        raise UserError(f"{name}: no JSON object with a key; expected one object per line")
    return pa.schema([(key, _type(column)) for key, column in values.items()])


def json_batches(name: str, chunks: Iterable[bytes], keys: list[str]) -> Iterator[pa.RecordBatch]:
    """Read the values of some keys, as text; a key that an object lacks, and an empty line, give null.

    Raises UserError for the errors of json_schema.
    """
    for block in text_blocks(name, chunks):
        lines = expect_utf8(name, block).data.decode().split("\n")[:-1]
        rows = [_object(name, line, text, **_NUMBERS_AS_TEXT) for line, text in enumerate(lines, block.first_line)]
        yield pa.record_batch(
            [pa.array([_text(row.get(key)) for row in rows], pa.string()) for key in keys], names=keys
        )


_NUMBERS_AS_TEXT: dict[str, Any] = {"parse_float": str, "parse_int": str, "parse_constant": str}


def _object(name: str, line: int, text: str, **options: Any) -> dict[str, Any]:
    try:
        value = json.loads(text, object_pairs_hook=_distinct, **options) if text.strip() else {}
        if "\\u" in text:  # half of a pair of escapes cannot be encoded
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise UserError(f"{name}:{line}: not JSON: {error}; expected one object per line") from None
    if not isinstance(value, dict):
        raise UserError(f"{name}:{line}: expected a JSON object, got {shorten(text, 80)!r}")
    return value


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError(f"duplicate key in one object: {', '.join(key for key, _ in pairs)}")
    return values


def _type(values: list[Any]) -> pa.DataType:
    try:
        return pa.array(values).type
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):  # of several types
        return pa.string()


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value)
