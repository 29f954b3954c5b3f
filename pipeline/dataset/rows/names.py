"""Names of columns in relation `promoters`: as written in the input, distinct, and quoted for SQL."""

from collections.abc import Iterable

RESERVED = frozenset(
    (
        "id",
        "sequence",
        "expression",
        "split",
        "position",
        "pretrain_split",
        "pretrain_position",
        "run",
        "prediction",
        "label",
    )
)
"""Columns of the relations and Parquet files that are joined with `promoters`, in lower case."""


def distinct_names(names: Iterable[str]) -> list[str]:
    """Make names distinct in any case: NAME_input for a reserved one, NAME_2 for the second column of one name."""
    results: list[str] = []
    taken = set(RESERVED)
    for name in names:
        result = base = f"{name}_input" if name.casefold() in RESERVED else name
        number = 2
        while result.casefold() in taken:
            result = f"{base}_{number}"
            number += 1
        taken.add(result.casefold())
        results.append(result)
    return results


def quoted(name: str) -> str:
    """Quote a name for SQL."""
    return '"' + name.replace('"', '""') + '"'


def quoted_text(text: str) -> str:
    """Quote a text for SQL."""
    return "'" + text.replace("'", "''") + "'"
