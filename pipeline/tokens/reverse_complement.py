"""Reverse complement: k-mer ids of the other strand, from the ids of the sequence.

Both strands are the same piece of DNA, so training on both doubles what a model sees.
"""

from functools import cache

import numpy as np
import numpy.typing as npt

from pipeline.tokens.kmers import ALPHABET, SPECIALS, id_dtype
from pipeline.tokens.padding import Ids, Numbers, padded_rows

_BASES = len(ALPHABET)
_COMPLEMENT = np.array([ALPHABET.index(base) for base in "TGCAN"])


def reverse_complement(tokens: Ids, lengths: Numbers, k: int) -> Ids:
    """Compute the ids of the sequences' reverse complements. tokens: (rows, width), one id per base, 0 past each end.

    Equal to encoding the reverse complements, Ns past the end included.
    """
    rows, width = tokens.shape
    if not rows or not width:
        return tokens
    mirrored = _translate(_reverse_complement_ids(k), tokens[:, ::-1])  # now padding comes first, then the last k-mer
    extended = np.concatenate([mirrored.ravel(), np.zeros(width + k, tokens.dtype)])
    # The k - 1 k-mers that ran past the end are dropped: complete ones lie within both strands.
    starts = np.arange(rows) * width + width - lengths + k - 1
    whole = np.maximum(lengths - k + 1, 0)
    out = padded_rows(extended, starts, whole, width)
    # The k-mers past the end now hold the first bases of the sequence, known from its first k-mer.
    first = mirrored[:, -1].astype(np.int64) - len(SPECIALS)
    for bases in range(1, k):
        here = np.flatnonzero(lengths >= bases)
        ns = _BASES ** (k - bases)
        out[here, lengths[here] - bases] = first[here] % _BASES**bases * ns + ns - 1 + len(SPECIALS)
    return out


def draw_strands(seed: int, epoch: int, positions: Numbers) -> npt.NDArray[np.bool_]:
    """Draw which promoters of a split are read from the other strand in an epoch: each with probability 1/2."""
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
    """Map each id to that of its reverse complement; the specials stay."""
    rest = np.arange(_BASES**k)
    number = np.zeros_like(rest)
    for _ in range(k):
        number = number * _BASES + _COMPLEMENT[rest % _BASES]
        rest //= _BASES
    table: Ids = np.concatenate([np.arange(len(SPECIALS)), number + len(SPECIALS)]).astype(id_dtype(k))
    return table
