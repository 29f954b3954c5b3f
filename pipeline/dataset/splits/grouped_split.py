"""Split the dataset by clusters of related inserts (dataset.split=grouped), each cluster into one split.

1. sql/splits/inserts.sql: the valid rows with their inserts;
2. near_duplicates: rows -> equal inserts, near-duplicates, shared runs -> clusters;
3. sql/splits/grouped.sql: a split for each cluster; rows that are in no cluster fill the splits.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.config.schema import Dataset
from pipeline.dataset.database import rows_of, statement
from pipeline.dataset.input.view import set_variables
from pipeline.dataset.splits.insert_rows import READ_ROWS, read_inserts, reserve_workspace
from pipeline.dataset.splits.split_leaks import LargestCluster
from pipeline.errors import UserError
from pipeline.near_duplicates.candidates import Buckets
from pipeline.near_duplicates.clusters import DisjointSets
from pipeline.near_duplicates.leaks import LeakCounter, Split
from pipeline.near_duplicates.packing import Indices
from pipeline.near_duplicates.runs import find_shared_runs, name_shared_run
from pipeline.near_duplicates.search import Equal, find_near_duplicates
from pipeline.near_duplicates.spill import Workspace


@dataclass(frozen=True)
class _Sizes:
    rows: int
    test: int
    valid: int
    train: int


def create_grouped_promoters(
    connection: duckdb.DuckDBPyConnection, dataset: Dataset, marks: dict[str, str]
) -> tuple[int, LargestCluster]:
    """Create relations `promoters` and `near_duplicates` from view `usable`, with the settings of the connection.

    marks: SQL for the marks of the statements; with group_code, the rows of one value of that column lie together.
    Returns the number of held-out rows of a random split of the same sizes that would have an equal insert or a
    near-duplicate in training, and the largest cluster. Raises UserError if clusters leave more than half of a split
    empty.
    """
    with reserve_workspace(connection) as workspace:
        return _create(connection, dataset, workspace, marks)


def _create(
    connection: duckdb.DuckDBPyConnection, dataset: Dataset, workspace: Workspace, marks: dict[str, str]
) -> tuple[int, LargestCluster]:
    connection.execute(statement("splits/inserts.sql"))
    sizes = _Sizes(*rows_of(connection, statement("splits/requested_sizes.sql"))[0])
    sets, random_split = DisjointSets(sizes.rows), LeakCounter(_random_split(connection, sizes))
    query = statement("splits/inserts_by_length.sql")
    for relation in find_near_duplicates(read_inserts(connection, query), dataset.max_mismatches, workspace):
        random_split.add(relation)
        sets.join(*((relation.rows, relation.first) if isinstance(relation, Equal) else (relation.i, relation.j)))
    leaks = random_split.near_duplicates()
    del random_split
    largest_run = np.empty(0, np.int64)
    if dataset.group_overlap:
        for runs in find_shared_runs(
            lambda: read_inserts(connection, query), dataset.group_overlap, sizes.rows, workspace
        ):
            sets.join(np.repeat(runs.members[runs.starts], runs.sizes), runs.members)
            largest_run = _larger(largest_run, runs)
    if "group_code" in marks:
        for first, row in _read_pairs(connection, statement("splits/group_pairs.sql", marks)):
            sets.join(first, row)
    members = pa.RecordBatchReader.from_batches(
        pa.schema([("row", pa.int64()), ("root", pa.int64())]), map(_batch, sets.shared())
    )
    connection.register("found_members", members)
    connection.execute("create or replace temp table members as from found_members")
    connection.unregister("found_members")
    del sets
    connection.execute(statement("splits/grouped_clusters.sql"))
    _add_clusters(connection, sizes)
    test, valid, largest = _assigned(connection)
    cluster = LargestCluster(largest, *_name_run(connection, largest_run, dataset.group_overlap))
    if 2 * test < sizes.test or 2 * valid < sizes.valid:
        raise UserError(
            f"dataset.split: too few promoters are in no cluster or in small ones; expected {sizes.test:,} test and "
            f"{sizes.valid:,} validation rows, got {test:,} and {valid:,}; the largest cluster has "
            f"{cluster.describe()}; fix: {_suggest_smaller_clusters(dataset)}"
        )
    set_variables(connection, {"finetune_test": test, "finetune_valid": valid})
    connection.execute(statement("splits/grouped.sql", marks))
    return leaks, cluster


def _suggest_smaller_clusters(dataset: Dataset) -> str:
    """Suggest to change the settings that form the clusters."""
    settings = {
        "a lower dataset.max_mismatches": dataset.max_mismatches,
        "a larger dataset.group_overlap": dataset.group_overlap,
        "another dataset.group_column": dataset.group_column,
    }
    return ", ".join(["smaller sizes", *(fix for fix, value in settings.items() if value), "or dataset.split=random"])


def _random_split(connection: duckdb.DuckDBPyConnection, sizes: _Sizes) -> npt.NDArray[np.uint8]:
    """Assign rows to the splits of a random split: (rows,) values of Split."""
    splits = np.zeros(sizes.rows, np.uint8)
    start, held_out = 0, sizes.test + sizes.valid
    for batch in connection.sql(statement("splits/random_split.sql")).to_arrow_reader(READ_ROWS):
        rows = batch.column(0).to_numpy()
        ranks = np.arange(start, start + len(rows))
        splits[rows] = np.select([ranks < held_out, ranks < held_out + sizes.train], [Split.HELD_OUT, Split.TRAIN], 0)
        start += len(rows)
    return splits


def _read_pairs(connection: duckdb.DuckDBPyConnection, query: str) -> Iterator[tuple[Indices, Indices]]:
    for batch in connection.sql(query).to_arrow_reader(READ_ROWS):
        yield batch.column(0).to_numpy(), batch.column(1).to_numpy()


def _assigned(connection: duckdb.DuckDBPyConnection) -> tuple[int, int, int]:
    """Count the test and validation rows, and the rows of the largest cluster."""
    ((test, valid, largest),) = rows_of(connection, statement("splits/grouped_sizes.sql"))
    return test, valid, largest


def _add_clusters(connection: duckdb.DuckDBPyConnection, sizes: _Sizes) -> None:
    """Move training clusters that fit into test and validation, where too few rows are in no cluster to fill them."""
    test, valid, _ = _assigned(connection)
    missing = {"test": sizes.test - test, "valid": sizes.valid - valid}
    moved: dict[str, list[int]] = {"test": [], "valid": []}
    if not any(missing.values()):
        return
    for batch in connection.sql(statement("splits/grouped_training_clusters.sql")).to_arrow_reader(READ_ROWS):
        for root, rows in zip(batch.column(0).to_pylist(), batch.column(1).to_pylist(), strict=True):
            for split, left in missing.items():
                if rows <= left:
                    missing[split] -= rows
                    moved[split].append(root)
                    break
    for split, roots in moved.items():
        connection.execute("update clusters set split = ? where root in (select unnest(?))", [split, roots])


def _batch(columns: tuple[Indices, Indices]) -> pa.RecordBatch:
    return pa.record_batch([pa.array(column) for column in columns], names=["row", "root"])


def _larger(largest: Indices, runs: Buckets) -> Indices:
    """Return the rows of the larger run: `largest`, or the largest of `runs`."""
    number = int(np.argmax(runs.sizes))
    if runs.sizes[number] <= len(largest):
        return largest
    return runs.members[runs.starts[number] :][: runs.sizes[number]].copy()


def _name_run(connection: duckdb.DuckDBPyConnection, rows: Indices, length: int) -> tuple[()] | tuple[str, int]:
    """Name the run that rows share, and count the rows."""
    if not len(rows):
        return ()
    distinct = np.unique(rows)
    inserts = rows_of(
        connection, 'select "insert" from inserts where row in (select unnest(?))', [distinct[:8].tolist()]
    )
    return name_shared_run([insert for (insert,) in inserts], length), len(distinct)
