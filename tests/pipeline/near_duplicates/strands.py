"""Inserts on both strands, as the search reads them."""

import numpy as np
import pyarrow as pa

from pipeline.io.arrow import view_strings
from pipeline.near_duplicates.packing import Packed, encode, pack

OTHER = str.maketrans("ACGT", "TGCA")


def reverse_complement(insert):
    return insert[::-1].translate(OTHER)


def by_length(inserts, rows=None):
    """Yield batches of a few rows and their inserts, shortest first. rows: only these."""
    order = sorted(range(len(inserts)) if rows is None else rows, key=lambda row: len(inserts[row]))
    size = max(50, len(order) // 5)
    for start in range(0, len(order), size):
        part = order[start : start + size]
        yield np.array(part, np.int64), pa.array([inserts[row] for row in part], pa.string())


def packed(inserts):
    """Pack inserts of one length, on one strand."""
    text, starts, _ = view_strings(pa.array(inserts))
    return Packed(len(inserts[0]), pack(encode(text, starts, len(inserts[0]))), np.arange(len(inserts)))
