"""Clusters of near-duplicates: the connected components of their pairs, each named by a leader."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pipeline.near_duplicates.packing import Indices
from pipeline.near_duplicates.pairs import Pairs, pair_chunks

_PAIRS_AT_ONCE = 1 << 21
"""Pairs kept before they are reduced to one per insert: 32 MiB, and eight times that during the reduction."""


@dataclass(frozen=True)
class Clusters:
    """The inserts that have a near-duplicate, by row: insert rows[m] is in the cluster of insert leaders[m].

    The leader is the alphabetically first member of its cluster.
    """

    rows: Indices
    leaders: Indices


def near_duplicate_clusters(inserts: pa.ChunkedArray | pa.Array, max_mismatches: int = 2) -> Clusters:
    """Find the connected components of pairs.pair_chunks; rows ascend.

    The same inserts give the same clusters and leaders in any order. Equal inserts count as one, represented by the
    first of their rows. An insert without near-duplicates is in no cluster. inserts, errors and memory are those of
    pairs.pair_chunks, plus at most 256 MiB and about 200 bytes per row that has near-duplicates.
    """
    rows, cluster = _components(*_reduce(pair_chunks(inserts, max_mismatches)))
    order = pc.sort_indices(inserts.take(pa.array(rows))).to_numpy()
    _, first = np.unique(cluster[order], return_index=True)
    return Clusters(rows, rows[order[first]][cluster])


def _reduce(chunks: Iterable[Pairs]) -> Pairs:
    """Reduce pairs to fewer that connect the same inserts: each insert with the first of its component."""
    kept: list[Pairs] = []
    size = 0
    for chunk in chunks:
        kept.append(chunk)
        size += len(chunk[0])
        if size > _PAIRS_AT_ONCE:
            rows, cluster = _components(*_join(kept))
            _, first = np.unique(cluster, return_index=True)
            kept = [(rows[first][cluster], rows)]
            size = 0  # the kept pairs grow with the inserts, not with the pairs
    return _join(kept)


def _join(chunks: list[Pairs]) -> Pairs:
    nothing = np.empty(0, np.int64)
    return np.concatenate([nothing, *(i for i, _ in chunks)]), np.concatenate([nothing, *(j for _, j in chunks)])


def _components(i: Indices, j: Indices) -> Pairs:
    """Number the connected components from 0: the rows in pairs, ascending, and the number of each."""
    rows, numbers = np.unique(np.concatenate([i, j]), return_inverse=True)
    ends = numbers[: len(i)], numbers[len(i) :]
    graph = coo_array((np.ones(len(i), bool), ends), shape=(len(rows), len(rows)))
    _, cluster = connected_components(graph, directed=False)
    return rows, cluster.astype(np.int64)
