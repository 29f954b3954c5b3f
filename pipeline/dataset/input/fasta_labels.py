"""Find the labels in the headers of FASTA: by a known key, as in `>id expression=11.5`, or by a requested field."""

import re
import shlex
from collections.abc import Iterable

from pipeline.dataset.input.cells import is_number
from pipeline.dataset.input.columns import AMBIGUOUS_NAME, LABEL_NAMES, Columns
from pipeline.errors import UserError
from pipeline.paths import suggest
from pipeline.runtime.text import format_count

KEYS = (*LABEL_NAMES, "label", "value", "target", "log2fc", "logfc", "log2foldchange", "log2_fold_change")
"""Keys of labels, in lower case. The first ones win over the others, as in tables."""

_PAIR = re.compile(r"(?:^>|[\s|;:,])([^\s|;:,=>]+)\s*=\s*([^\s|;,]+)(?=[\s|;]|,\D|,?$)")
"""A value that continues after a comma, such as 5,2, is no number."""
_SEPARATOR = re.compile(r"\s*[=|:;]\s*|,?\s+")


def check_fasta_columns(file: str, columns: Columns) -> None:
    """Raise UserError for a requested column of sequences, which FASTA does not have."""
    if columns.sequence is not None:
        raise UserError(f"{file}: --sequence-column {columns.sequence}: FASTA has no columns; fix: omit the option")


def find_fasta_label(file: str, lines: Iterable[str], columns: Columns) -> tuple[str, int, bool]:
    """Find the labels among the first lines: their key, or the number of their field, and whether any was found.

    Without any label the key is `expression`, which later headers may have. Raises UserError for several known keys,
    and for a requested key or field that no header has.
    """
    headers = [line for line in lines if line[:1] == ">"]
    pairs = [(key.lower(), value) for header in headers for key, value in _PAIR.findall(header)]
    if not columns.labels:
        key = _known_key(file, pairs)
        return key or "expression", 0, key != ""
    if len(columns.labels) > 1:
        raise UserError(f"{file}: FASTA holds one label per entry; fix: a table, for {', '.join(columns.labels)}")
    (requested,) = columns.labels
    if requested.lower() in {key for key, _ in pairs}:
        return requested, 0, True
    if not requested.isdecimal():
        keys = list(dict.fromkeys(key for key, _ in pairs))
        got = f"{', '.join(keys) or 'no key=value'}{suggest(requested, keys)}"
        raise UserError(f"{file}: no header has the key {requested}; got {got}; fix: --expression-column KEY")
    rows = [_SEPARATOR.split(header[1:].strip()) for header in headers]
    if not any(0 < int(requested) <= len(fields) and is_number(fields[int(requested) - 1]) for fields in rows):
        example = repr(headers[0][:60]) if headers else "no header"
        raise UserError(f"{file}: field {requested} of the headers holds no number; got {example}")
    return "", int(requested), True


def _known_key(file: str, pairs: list[tuple[str, str]]) -> str:
    numbers = {key: [float(value) for other, value in pairs if other == key and is_number(value)] for key in KEYS}
    keys = [key for key, values in numbers.items() if values]
    first = [key for key in keys if key in LABEL_NAMES and key != AMBIGUOUS_NAME]
    if len(first) == 1 or len(keys) == 1:
        return (first or keys)[0]
    if keys:
        ranges = ", ".join(
            f"'{key}' ({format_count(len(numbers[key]), 'number')}, {min(numbers[key]):g} … {max(numbers[key]):g})"
            for key in keys
        )
        raise UserError(
            f"{file}: ambiguous label key: {ranges}; fix: name it, such as --expression-column {shlex.quote(keys[0])}, "
            "or --no-labels"
        )
    return ""
