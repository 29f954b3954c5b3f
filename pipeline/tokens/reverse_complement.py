"""Reverse complement: k-mer ids of the other strand, computed from the ids of the sequence.

Both strands are the same DNA, so training on both is data augmentation.
"""

from functools import cache

import numpy as np
import numpy.typing as npt

from pipeline.tokens.kmers import ALPHABET, SPECIALS, Ids, Numbers, id_dtype
from pipeline.tokens.padding import pad_rows

_BASES = len(ALPHABET)


def reverse_complement(tokens: Ids, lengths: Numbers, k: int) -> Ids:
    """Compute the ids of the reverse complements of sequences: (rows, width).

    tokens: (rows, width) ids, one per base, 0 after each end; lengths: (rows,) bases. The result equals the encoded
    reverse complements, Ns after the end included.
    """
    rows, width = tokens.shape
    if not rows or not width:
        return tokens
    mirrored = _translate(_reverse_complement_ids(k), tokens[:, ::-1])  # padding first, then the last k-mer
    extended = np.concatenate([mirrored.ravel(), np.zeros(width + k, tokens.dtype)])
    # The last k - 1 k-mers, which contain Ns after the end, are dropped: only complete k-mers have a complement here.
    starts = np.arange(rows) * width + width - lengths + k - 1
    whole = np.maximum(lengths - k + 1, 0)
    out = pad_rows(extended, starts, whole, width)
    # The last k - 1 k-mers of the other strand are made of the first bases of the sequence, from its first k-mer.
    first = mirrored[:, -1].astype(np.int64) - len(SPECIALS)
    for bases in range(1, k):
        long_rows = np.flatnonzero(lengths >= bases)
        ns = _BASES ** (k - bases)
        out[long_rows, lengths[long_rows] - bases] = first[long_rows] % _BASES**bases * ns + ns - 1 + len(SPECIALS)
    return out


def draw_strands(seed: int, epoch: int, positions: Numbers) -> npt.NDArray[np.bool_]:
    """Draw the promoters that are read from the other strand in an epoch, each with probability 1/2: (n,) bool.

    positions: (n,) int64, in the split. A promoter's draw depends on seed, epoch and its position only.
    """
    key = np.random.SeedSequence([seed, epoch, 2]).generate_state(1, np.uint64)
    mixed = positions.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + key
    # The finalizer of SplitMix64 (Steele, Lea and Flood, 2014): every bit of the number affects the highest one.
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    strands: npt.NDArray[np.bool_] = mixed >> np.uint64(63) == 1
    return strands


def _translate(table: Ids, tokens: Ids) -> Ids:
    if tokens.itemsize > 1:
        return table[tokens]
    # bytes.translate is the fastest lookup for one-byte ids.
    data = tokens.tobytes().translate(table.tobytes().ljust(256, b"\0"))
    return np.frombuffer(data, np.uint8).reshape(tokens.shape)


@cache
def _reverse_complement_ids(k: int) -> Ids:
    """Map the id of each k-mer to the id of its reverse complement: (vocabulary,). Special tokens map to themselves."""
    numbers = np.arange(_BASES**k).reshape([_BASES] * k)  # one axis per base
    complement = np.ix_(*[["TGCAN".index(base) for base in ALPHABET]] * k)
    table: Ids = np.append(np.arange(len(SPECIALS)), numbers.T[complement] + len(SPECIALS)).astype(id_dtype(k))
    return table
