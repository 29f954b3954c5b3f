"""Encode promoters of an Arrow column as k-mer ids, without Python per sequence."""

import pyarrow as pa

from pipeline.config.schema import Assay
from pipeline.io.arrow import string_buffers
from pipeline.tokens.kmers import Letters, Ragged, encode_inserts


def encode_promoters(
    sequences: pa.ChunkedArray | pa.Array, assay: Assay, k: int, memory: Letters | None = None
) -> Ragged:
    """Encode promoters, one id per base of the extended sequence: adapters are replaced by flanks.

    The sequences must have passed the rules of sql/01_rules.sql. memory: see encode_inserts. Raises ValueError for
    letters other than ACGTN.
    """
    text, starts, lengths = string_buffers(sequences)
    left, right = len(assay.left_adapter), len(assay.right_adapter)
    return encode_inserts(text, starts + left, lengths - left - right, k, assay.left_flank, assay.right_flank, memory)
