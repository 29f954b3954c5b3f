"""The filter of rows by an SQL expression over the columns of the input (dataset.where)."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import duckdb

from pipeline.dataset.database import rows_of
from pipeline.errors import UserError

ALLOWED = frozenset(
    (
        "COLUMN_REF",
        "CONSTANT",
        "COMPARISON",
        "CONJUNCTION",
        "OPERATOR",
        "FUNCTION",
        "CAST",
        "BETWEEN",
        "CASE",
        "LAMBDA",
        "LAMBDA_REF",
        "COLLATE",
        "TYPE",
    )
)
"""Classes of DuckDB's parsed expressions that read nothing but the row: no sub-select, window or parameter."""

VOLATILE_FUNCTIONS = "select function_name from duckdb_functions() where stability = 'VOLATILE'"
"""Functions with another value in each call, such as random, or with side effects."""


def checked_filter(expression: str) -> str:
    """Return the SQL of a filter. Raises UserError if it is not one expression over the columns of a row.

    Sub-selects are refused: they could read other files.
    """
    statement = f"select (\n{expression}\n) from cells"  # on lines of its own, so that a comment ends with it
    with duckdb.connect(config={"enable_external_access": False}) as connection:
        ((text,),) = rows_of(connection, "select json_serialize_sql(?::varchar)", [statement])
        volatile = {name for (name,) in rows_of(connection, VOLATILE_FUNCTIONS)}
    parsed = json.loads(text)
    if parsed["error"]:
        raise _error(expression, parsed["error_message"])
    nodes = [each["node"] for each in parsed["statements"]]
    if len(nodes) != 1 or nodes[0]["type"] != "SELECT_NODE" or len(nodes[0]["select_list"]) != 1:
        raise _error(expression, "not one expression")
    tree = nodes[0]
    (value,) = tree["select_list"]
    is_plain = tree["from_table"].get("table_name") == "cells" and not tree["modifiers"] and not tree["where_clause"]
    if not is_plain or tree["cte_map"]["map"] or tree["group_expressions"] or tree["having"] or tree["qualify"]:
        raise _error(expression, "not one expression")
    if others := sorted({kind for kind in _values(value, "class") if kind not in ALLOWED}):
        raise _error(expression, f"{', '.join(others).lower()} is not allowed in a filter")
    if others := sorted({name for name in _values(value, "function_name") if name in volatile}):
        raise _error(expression, f"{', '.join(others)} does not depend on the row only")
    return f"(\n{expression}\n)"


def _values(tree: Any, key: str) -> Iterator[str]:
    """Find the texts of one key at all levels of a parsed expression."""
    if isinstance(tree, dict):
        if isinstance(tree.get(key), str):
            yield tree[key]
        for value in tree.values():
            yield from _values(value, key)
    elif isinstance(tree, list):
        for value in tree:
            yield from _values(value, key)


def check_columns(
    connection: duckdb.DuckDBPyConnection, expression: str, relation: str, prefix: str, names: Mapping[str, str]
) -> None:
    """Evaluate a filter over a relation of all rows. Raises UserError with the columns if that fails.

    prefix: of the columns that the filter is not meant to use. names: for the columns that DuckDB names in its error.
    """
    try:
        sql = f"select count(*) filter (({checked_filter(expression)})::boolean) from {relation}"
        rows_of(connection, sql)
    except duckdb.Error as error:
        types = rows_of(connection, f"select column_name, column_type from (describe {relation})")
        columns = ", ".join(f"{name} ({kind.lower()})" for name, kind in types if not name.startswith(prefix))
        problem = re.sub(r"\w+", lambda word: names.get(word[0], word[0]), str(error).strip().split("\n")[0])
        raise _error(expression, problem, f"; the columns are {columns}") from None


def _error(expression: str, problem: str, more: str = "") -> UserError:
    return UserError(
        f'dataset.where={expression}: {problem}; expected an expression over the columns, such as "x < 1"{more}'
    )
