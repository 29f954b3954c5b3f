"""Groups of near-duplicates: what hangs together by their pairs, each under a leader."""

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
"""Pairs kept before they are thinned out to one an insert: 32 MiB, and eight times that while they are."""
_TAKEN_AT_ONCE = 1 << 17


@dataclass(frozen=True)
class Groups:
    """The inserts that have a near-duplicate, by row: insert rows[m] is in the group of insert leaders[m].

    A leader is the first of its group in the order of the alphabet, and in the group itself.
    """

    rows: Indices
    leaders: Indices

    def __len__(self) -> int:
        """Number of groups."""
        return len(np.unique(self.leaders))


def near_duplicate_groups(inserts: pa.ChunkedArray | pa.Array, max_mismatches: int = 2) -> Groups:
    """The connected components of near_duplicate_pairs, rows ascending: any two that are near-duplicates are in one.

    The same inserts give the same groups under the same leaders whatever their order. Equal inserts count as one, and
    the first of their rows stands for them; an insert without near-duplicates is in no group. inserts, errors and
    memory as in neighbours.pair_chunks, with at most 256 MiB and some 200 bytes a row that has near-duplicates on top.
    """
    i, j = _spanning(pair_chunks(inserts, max_mismatches))
    rows, group = _components(i, j)
    order = pc.sort_indices(_take(inserts, rows)).to_numpy()
    _, first = np.unique(group[order], return_index=True)
    return Groups(rows, rows[order[first]][group])


def _spanning(chunks: Iterable[Pairs]) -> Pairs:
    """Pairs that connect what all of the pairs connect, but few."""
    kept: list[Pairs] = []
    size = 0
    for chunk in chunks:
        kept.append(chunk)
        size += len(chunk[0])
        if size > _PAIRS_AT_ONCE:
            kept = [_thinned(*_joined(kept))]
            size = 0  # what is left grows with the inserts, not with the pairs
    return _joined(kept)


def _joined(pairs: list[Pairs]) -> Pairs:
    nothing = np.empty(0, np.int64)
    return np.concatenate([nothing, *(i for i, _ in pairs)]), np.concatenate([nothing, *(j for _, j in pairs)])


def _thinned(i: Indices, j: Indices) -> Pairs:
    """Every row with the first of its component."""
    rows, group = _components(i, j)
    _, first = np.unique(group, return_index=True)
    return rows[first][group], rows


def _components(i: Indices, j: Indices) -> Pairs:
    """The rows in pairs, ascending, and the number of each one's component, from 0."""
    rows, numbers = np.unique(np.concatenate([i, j]), return_inverse=True)
    left, right = numbers[: len(i)], numbers[len(i) :]
    graph = coo_array((np.ones(len(i), bool), (left, right)), shape=(len(rows), len(rows)))
    _, group = connected_components(graph, directed=False)
    return rows, group.astype(np.int64)


def _take(inserts: pa.ChunkedArray | pa.Array, rows: Indices) -> pa.ChunkedArray:
    """The inserts of some rows, which ascend; a part of the column at a time, so that none of it is copied whole."""
    parts: list[pa.Array] = []
    for start in range(0, len(inserts), _TAKEN_AT_ONCE):
        low, high = np.searchsorted(rows, [start, start + _TAKEN_AT_ONCE])
        part = inserts.slice(start, _TAKEN_AT_ONCE).take(pa.array(rows[low:high] - start))
        parts += part.chunks if isinstance(part, pa.ChunkedArray) else [part]
    return pa.chunked_array(parts, inserts.type)
