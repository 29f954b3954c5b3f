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
"""Pairs kept before they are reduced to one per insert: 32 MiB, and eight times that meanwhile."""
_TAKEN_AT_ONCE = 1 << 17


@dataclass(frozen=True)
class Clusters:
    """The inserts that have a near-duplicate, by row: insert rows[m] is in the cluster of insert leaders[m].

    The leader is the alphabetically first member of its cluster.
    """

    rows: Indices
    leaders: Indices

    def __len__(self) -> int:
        """Number of clusters."""
        return len(np.unique(self.leaders))


def near_duplicate_clusters(inserts: pa.ChunkedArray | pa.Array, max_mismatches: int = 2) -> Clusters:
    """Find the connected components of near_duplicate_pairs; rows ascend.

    The same inserts give the same clusters and leaders in any order. Equal inserts count as one, represented by the
    first of their rows. An insert without near-duplicates is in no cluster. inserts, errors and memory are those of
    pairs.pair_chunks, plus at most 256 MiB and about 200 bytes per row that has near-duplicates.
    """
    i, j = _spanning(pair_chunks(inserts, max_mismatches))
    rows, cluster = _components(i, j)
    order = pc.sort_indices(_take(inserts, rows)).to_numpy()
    _, first = np.unique(cluster[order], return_index=True)
    return Clusters(rows, rows[order[first]][cluster])


def _spanning(chunks: Iterable[Pairs]) -> Pairs:
    """Reduce pairs to few that connect the same inserts."""
    kept: list[Pairs] = []
    size = 0
    for chunk in chunks:
        kept.append(chunk)
        size += len(chunk[0])
        if size > _PAIRS_AT_ONCE:
            kept = [_thinned(*_joined(kept))]
            size = 0  # the rest grows with the inserts, not with the pairs
    return _joined(kept)


def _joined(pairs: list[Pairs]) -> Pairs:
    nothing = np.empty(0, np.int64)
    return np.concatenate([nothing, *(i for i, _ in pairs)]), np.concatenate([nothing, *(j for _, j in pairs)])


def _thinned(i: Indices, j: Indices) -> Pairs:
    """Pair every row with the first of its component."""
    rows, cluster = _components(i, j)
    _, first = np.unique(cluster, return_index=True)
    return rows[first][cluster], rows


def _components(i: Indices, j: Indices) -> Pairs:
    """The rows in pairs, ascending, and the number of each one's component, from 0."""
    rows, numbers = np.unique(np.concatenate([i, j]), return_inverse=True)
    left, right = numbers[: len(i)], numbers[len(i) :]
    graph = coo_array((np.ones(len(i), bool), (left, right)), shape=(len(rows), len(rows)))
    _, cluster = connected_components(graph, directed=False)
    return rows, cluster.astype(np.int64)


def _take(inserts: pa.ChunkedArray | pa.Array, rows: Indices) -> pa.ChunkedArray:
    """Take the inserts of ascending rows, one slice of the column at a time, so that it is not copied as a whole."""
    parts: list[pa.Array] = []
    for start in range(0, len(inserts), _TAKEN_AT_ONCE):
        low, high = np.searchsorted(rows, [start, start + _TAKEN_AT_ONCE])
        part = inserts.slice(start, _TAKEN_AT_ONCE).take(pa.array(rows[low:high] - start))
        parts += part.chunks if isinstance(part, pa.ChunkedArray) else [part]
    return pa.chunked_array(parts, inserts.type)
