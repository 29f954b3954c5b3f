"""Count what held-out rows of fine-tuning have in common with training rows.

Near-duplicates, reverse complements and shared runs of 40 bases, by the exact search of pipeline/near_duplicates. The
build examines small datasets; the command `leaks` examines any. What was not examined is null in relation split_leaks.
"""

from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np

from pipeline.dataset.database import open_dataset, rows_of, set_memory_limit
from pipeline.dataset.splits.insert_rows import read_inserts, reserve_workspace
from pipeline.near_duplicates.leaks import LeakCounter, Split
from pipeline.near_duplicates.runs import find_shared_runs
from pipeline.near_duplicates.search import find_near_duplicates
from pipeline.runtime.text import format_count

RUN_BASES = 40
MAX_BUILD_ROWS = 100_000
"""The build examines datasets of at most this many promoters: the search takes 13 CPU seconds per million."""

_INSERTS = """
    select
        id,
        substring(
            sequence,
            1 + (select length(left_adapter) from dataset),
            length(sequence) - (select length(left_adapter) + length(right_adapter) from dataset)
        ) as "insert"
    from finetune
    order by strlen(sequence)
"""


@dataclass(frozen=True)
class SplitLeaks:
    """Held-out rows of fine-tuning by what they have in common with training rows; None: not examined."""

    held_out: int
    near_duplicates: int | None = None
    """Rows with an equal insert or a near-duplicate in training, on either strand."""
    reverse_complements: int | None = None
    """Rows whose exact reverse complement is in training."""
    shared_runs: int | None = None
    """Rows that share a run of 40 bases with a training row, on either strand."""


@dataclass(frozen=True)
class LargestCluster:
    """The largest cluster: its rows, and the run of bases that the most rows share, with their number."""

    rows: int
    run: str | None = None
    run_rows: int = 0

    def describe(self) -> str:
        """Describe the rows of the cluster and its most common run."""
        run = f"; {format_count(self.run_rows, 'row')} share {self.run}" if self.run else ""
        return format_count(self.rows, "row") + run


def examine(connection: duckdb.DuckDBPyConnection) -> SplitLeaks:
    """Examine all held-out rows of an open dataset. Memory: the limit of the connection, and 9 bytes per row."""
    held_out, rows, max_mismatches = _sizes(connection)
    splits = np.full(rows, Split.TRAIN, np.uint8)
    splits[:held_out] = Split.HELD_OUT
    counter = LeakCounter(splits)
    with reserve_workspace(connection) as workspace:
        for relation in find_near_duplicates(read_inserts(connection, _INSERTS), max_mismatches, workspace):
            counter.add(relation)
        for runs in find_shared_runs(lambda: read_inserts(connection, _INSERTS), RUN_BASES, rows, workspace):
            counter.add_runs(runs)
    return SplitLeaks(held_out, counter.near_duplicates(), counter.reverse_complements(), counter.shared_runs())


def examine_dataset(path: Path | str, memory_limit: str | None = None, build_command: str = "") -> SplitLeaks:
    """Examine all held-out rows of a dataset; see examine. Raises UserError for a dataset that cannot be read."""
    with open_dataset(path, build_command=build_command) as connection:
        if memory_limit is not None:
            set_memory_limit(connection, memory_limit)
        return examine(connection)


def record_leaks(connection: duckdb.DuckDBPyConnection, group_overlap: int) -> None:
    """Fill relation split_leaks of a dataset in its build: examined if it is small, or as far as the split implies.

    group_overlap: bases of the runs that a grouped split keeps together; 0: none.
    """
    held_out, rows, _ = _sizes(connection)
    ((grouped,),) = rows_of(connection, "select split = 'grouped' from dataset")
    if not 0 < held_out < rows:
        leaks = SplitLeaks(held_out, 0, 0, 0)
    elif rows <= MAX_BUILD_ROWS:
        leaks = examine(connection)
    elif grouped:
        leaks = SplitLeaks(held_out, 0, 0, 0 if 0 < group_overlap <= RUN_BASES else None)
    else:
        leaks = SplitLeaks(held_out)
    connection.execute(
        "update split_leaks set near_duplicates = ?, reverse_complements = ?, shared_runs = ?",
        [leaks.near_duplicates, leaks.reverse_complements, leaks.shared_runs],
    )


def recorded_leaks(connection: duckdb.DuckDBPyConnection) -> SplitLeaks | None:
    """Read relation split_leaks of an open dataset; None if an earlier version built it."""
    if not rows_of(connection, "from duckdb_tables() where table_name = 'split_leaks'"):
        return None
    return SplitLeaks(*rows_of(connection, "from split_leaks")[0])


def _sizes(connection: duckdb.DuckDBPyConnection) -> tuple[int, int, int]:
    """Read the held-out rows, all rows of fine-tuning, and the mismatches of near-duplicates."""
    ((held_out, train, max_mismatches),) = rows_of(
        connection, "select finetune_test_rows + finetune_valid_rows, finetune_train_rows, max_mismatches from dataset"
    )
    return held_out, held_out + train, max_mismatches
