"""Encode promoters of an Arrow column as k-mer ids, without Python per sequence."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.config.schema import Assay
from pipeline.io.arrow import string_buffers
from pipeline.tokens.kmers import Ragged, ids_of_inserts


def encode_promoters(
    sequences: pa.ChunkedArray | pa.Array, assay: Assay, k: int, memory: npt.NDArray[np.uint8] | None = None
) -> Ragged:
    """Encode promoters, one id per base of the extended sequence: adapters are replaced by flanks.

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
