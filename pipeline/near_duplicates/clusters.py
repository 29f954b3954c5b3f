"""Clusters of rows: the connected components of all pairs that belong together."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pipeline.near_duplicates.packing import Indices

BATCH = 1 << 20
"""Rows whose roots are looked up at once."""


class DisjointSets:
    """Disjoint sets of rows that grow as pairs are joined. Memory: 4 bytes per row below 2^31 rows, else 8."""

    def __init__(self, rows: int) -> None:
        """Create one set per row."""
        dtype = np.int32 if rows < 1 << 31 else np.int64
        self._parents: npt.NDArray[np.signedinteger] = np.arange(rows, dtype=dtype)

    def join(self, i: Indices, j: Indices) -> None:
        """Join the sets of rows i and j, pair by pair: (pairs,) int64 each."""
        left, right = self._find(i), self._find(j)
        differ = left != right
        if not differ.any():
            return
        roots, numbers = np.unique(np.concatenate([left[differ], right[differ]]), return_inverse=True)
        ends = numbers[: len(numbers) // 2], numbers[len(numbers) // 2 :]
        graph = coo_array((np.ones(len(ends[0]), bool), ends), shape=(len(roots), len(roots)))
        _, component = connected_components(graph, directed=False)
        _, first = np.unique(component, return_index=True)
        self._parents[roots] = roots[first][component]

    def shared(self) -> Iterable[tuple[Indices, Indices]]:
        """List the rows of sets of several rows, ascending, with a row that stands for the set; in batches of int64."""
        sizes = np.zeros(len(self._parents), self._parents.dtype)
        for rows in self._batches():
            np.add.at(sizes, self._find(rows), 1)
        for rows in self._batches():
            roots = self._find(rows)
            several = sizes[roots] > 1
            yield rows[several], roots[several].astype(np.int64)

    def _batches(self) -> Iterable[Indices]:
        for start in range(0, len(self._parents), BATCH):
            yield np.arange(start, min(start + BATCH, len(self._parents)))

    def _find(self, rows: Indices) -> npt.NDArray[np.signedinteger]:
        """Find the root of each row, and let the row point to it."""
        roots: npt.NDArray[np.signedinteger] = self._parents[rows]
        while True:
            above = self._parents[roots]
            if np.array_equal(above, roots):
                self._parents[rows] = roots
                return roots
            roots = above
