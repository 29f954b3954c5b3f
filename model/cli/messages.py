"""Lines that predict, variants and evaluate print about the rows of a table."""

from collections.abc import Iterator
from typing import Protocol

from pipeline.runtime.text import format_count


class RowResult(Protocol):
    """Counts and speed of a command; see PredictionResult."""

    @property
    def rows(self) -> int: ...
    @property
    def rows_resumed(self) -> int: ...
    @property
    def problems(self) -> dict[str, int]: ...
    @property
    def hint(self) -> str: ...
    @property
    def seconds(self) -> float: ...
    @property
    def rows_per_second(self) -> float: ...


def describe_speed(result: RowResult, name: str) -> str:
    """Describe how many rows were predicted, and how fast. name: of a row, in the singular."""
    resumed = f", {result.rows_resumed:,} of them in an interrupted run" if result.rows_resumed else ""
    return (
        f"{format_count(result.rows, name)} in {result.seconds:,.1f} s{resumed} "
        f"({result.rows_per_second:,.0f} per second)"
    )


def describe_problems(result: RowResult, name: str = "row", problems_file: str | None = None) -> Iterator[str]:
    """Describe the rows without a prediction, by reason, and the repairs that would help.

    name: of a row, in the singular; problems_file: the list of these rows.
    """
    rows = format_count(result.rows, name)
    yield from (f"no prediction for {count:,} of {rows}: {problem}" for problem, count in result.problems.items())
    if result.hint:
        yield result.hint
    if problems_file:
        yield f"listed by row in {problems_file}"
