"""Clusters of near-duplicates: the connected components of their pairs, each named by a leader."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pipeline.near_duplicates.packing import Indices
from pipeline.near_duplicates.pairs import Pairs, find_pairs

_MAX_PAIRS = 1 << 21
"""Pairs in memory before they are reduced to one per insert: 32 MiB, and eight times that during the reduction."""


@dataclass(frozen=True)
class Clusters:
    """Inserts with near-duplicates: row rows[i] is in the cluster with leader row leaders[i]; both (n,) int64.

    The leader is the alphabetically first insert of its cluster.
    """

    rows: Indices
    leaders: Indices


def find_clusters(inserts: pa.ChunkedArray | pa.Array, max_mismatches: int = 2) -> Clusters:
    """Cluster near-duplicate inserts: the connected components of pairs.find_pairs. Rows ascend.

    The same inserts give the same clusters and leaders in any order. Equal inserts count as one, represented by the
    first of their rows. An insert without near-duplicates is in no cluster. inserts: (n,) strings over ACGTN;
    max_mismatches and errors: as in pairs.find_pairs. Memory: that of find_pairs, at most 256 MiB more, and about
    200 bytes per row with near-duplicates.
    """
    rows, cluster = _number_components(*_reduce(find_pairs(inserts, max_mismatches)))
    order = pc.sort_indices(inserts.take(pa.array(rows))).to_numpy()
    _, first = np.unique(cluster[order], return_index=True)
    return Clusters(rows, rows[order[first]][cluster])


def _reduce(chunks: Iterable[Pairs]) -> Pairs:
    """Reduce pairs to one per insert with the same components: each insert with the first of its component."""
    kept: list[Pairs] = []
    size = 0
    for chunk in chunks:
        kept.append(chunk)
        size += len(chunk[0])
        if size > _MAX_PAIRS:
            rows, cluster = _number_components(*_join(kept))
            _, first = np.unique(cluster, return_index=True)
            kept = [(rows[first][cluster], rows)]
            size = 0  # kept pairs are at most one per insert
    return _join(kept)


def _join(chunks: list[Pairs]) -> Pairs:
    nothing = np.empty(0, np.int64)
    return np.concatenate([nothing, *(i for i, _ in chunks)]), np.concatenate([nothing, *(j for _, j in chunks)])


def _number_components(i: Indices, j: Indices) -> Pairs:
    """Find connected components. Returns the rows in pairs, ascending, and the component number of each, from 0."""
    rows, numbers = np.unique(np.concatenate([i, j]), return_inverse=True)
    ends = numbers[: len(i)], numbers[len(i) :]
    graph = coo_array((np.ones(len(i), bool), ends), shape=(len(rows), len(rows)))
    _, cluster = connected_components(graph, directed=False)
    return rows, cluster.astype(np.int64)
