"""Promoters in an Arrow column -> k-mer ids, without Python per sequence."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.config.schema import Assay
from pipeline.tokens.kmers import Ragged, ids_of_inserts


def encode_promoters(
    sequences: pa.ChunkedArray | pa.Array, assay: Assay, k: int, memory: npt.NDArray[np.uint8] | None = None
) -> Ragged:
    """The ids of promoters, one a base of the extended sequence: the adapters are cut off, the flanks set on.

    The sequences must have passed the rules of sql/01_rules.sql. memory: see ids_of_inserts. Raises ValueError for
    letters other than ACGTN.
    """
    text, starts, lengths = string_buffers(sequences)
    return ids_of_inserts(
        text,
        starts + len(assay.left_adapter),
        lengths - len(assay.left_adapter) - len(assay.right_adapter),
        k,
        assay.left_flank,
        assay.right_flank,
        memory,
    )


def string_buffers(
    column: pa.ChunkedArray | pa.Array,
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """ASCII bytes of a column's strings, and where in them each begins and how long it is."""
    strings = column.cast(pa.large_string())
    if isinstance(strings, pa.ChunkedArray):
        strings = strings.chunk(0) if strings.num_chunks == 1 else strings.combine_chunks()
    _, offset_buffer, data = strings.buffers()
    offsets = np.frombuffer(offset_buffer, np.int64, len(strings) + 1, 8 * strings.offset)
    text = np.frombuffer(data, np.uint8) if data is not None else np.empty(0, np.uint8)
    first, end = offsets[0], offsets[-1]  # a slice keeps the bytes of the whole column
    return text[first:end], offsets[:-1] - first, np.diff(offsets)
