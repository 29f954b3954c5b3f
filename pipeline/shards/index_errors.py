"""Errors of an index that is invalid: the field, the value expected there, and the value that it has."""

import re
from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError

EXPECTED = {
    "file": "a name such as finetune/train-000000.tar",
    "sha256": "64 hex digits",
    "key": "64 hex digits",
    "offset": "an integer of at least 0",
    "bytes": "an integer of at least 1",
    "rows": "an integer of at least 1",
    "record_promoters": "an integer of at least 1",
    "crc32": "an integer of 32 bits",
    "k": "an integer from 1 to 8",
    "left_flank": "bases over ACGTN",
    "right_flank": "bases over ACGTN",
    "shard_megabytes": "a number of at least 0",
    "label_mean": "a finite number, or a list of one per label",
    "label_sd": "a number of at least 0, or a list of one per label",
    "labels": "names of at least two labels, each once",
    "splits": "shards of at least one split",
    "records": "a list of at least one record",
}
"""Expected values of fields, for errors."""
_SHOWN_CHARACTERS = 60
"""Length at which a wrong value is cut in an error."""


def check_equal(name: str, expected: Any, got: Any, reason: str) -> None:
    """Raise ValueError unless a field, `name`, has the expected value."""
    if got != expected:
        raise ValueError(f"{name}: expected {show_value(expected)} ({reason}), got {show_value(got)}")


def describe_first(error: ValidationError) -> str:
    """Describe the first error of pydantic as `field: expected X, got Y`."""
    first = error.errors(include_url=False, include_context=False)[0]
    location = first["loc"]
    if location and location[0] in ("label_mean", "label_sd"):
        location = location[:1]  # without the branch of the union: a number, or a list
    if first["type"] == "missing":
        return f"{name_field(location)}: missing"
    expected = EXPECTED.get(str(location[-1])) if location else None
    return f"{name_field(location)}: expected {expected or first['msg']}, got {show_value(first['input'])}"


def name_field(location: Iterable[int | str]) -> str:
    """Name a field as `splits.finetune/train[0].rows`."""
    plain = re.compile(r"[\w/]+", re.ASCII)
    parts = (
        f".{part}" if isinstance(part, str) and plain.fullmatch(part) else f"[{show_value(part)}]" for part in location
    )
    return "".join(parts).removeprefix(".")


def show_value(value: Any) -> str:
    """Show a value of an untrusted file in an error: as ASCII, shortened."""
    try:
        text = ascii(value)
    except RecursionError:
        text = "deeply nested values"
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."
