"""Pack inserts into machine words: 3 bits per base, 20 bases per 64-bit word, one array per length.

One exclusive or compares 20 bases of two inserts, and one mask per word selects any set of positions. N is a letter
like the others. Packed inserts take a quarter of the memory of their text.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.errors import UserError
from pipeline.io.arrow import string_buffers
from pipeline.tokens.kmers import ALPHABET

Indices = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]

BITS = 3
BASES = 20
"""Bases per word."""

_CODE = bytes(ALPHABET.find(chr(byte)) % 256 for byte in range(256))
_BASE = np.uint64((1 << BITS) - 1)
_ONE_PER_BASE = np.uint64(sum(1 << BITS * base for base in range(BASES)))
_SHIFT = np.uint64(BITS)
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_HALF_WORD = np.uint64(32)

_READ = 1 << 17
"""Inserts packed, or keys computed, at once: a few megabytes of scratch memory."""


@dataclass(frozen=True)
class Packed:
    """The inserts of one length.

    words: (length / 20 rounded up, n); base i of an insert is bits 3 (i % 20) and up of word i // 20, the rest is 0.
    rows: (n,), their rows in the column, ascending.
    """

    length: int
    words: Words
    rows: Indices

    def word(self, number: int, at: Indices, skip: int = 0) -> Words:
        """Read one word of the inserts `at`, without their first `skip` (0 or 1) bases: (len(at),)."""
        here: Words = self.words[number][at]
        if not skip:
            return here
        here >>= _SHIFT
        if number + 1 < len(self.words):
            here |= (self.words[number + 1][at] & _BASE) << np.uint64(BITS * (BASES - 1))
        return here

    def keys(self, at: Indices, positions: Indices, label: Words | None = None, skip: int = 0) -> Words:
        """Hash the bases at some positions, and a label; equal ones have equal hashes: (len(at),).

        at, label: (n,); skip: as in word.
        """
        keys = np.zeros(len(at), np.uint64) if label is None else label * _MULTIPLIER
        masks = position_masks(positions)
        for start in range(0, len(at), _READ):
            part, some = keys[start : start + _READ], at[start : start + _READ]
            for number, mask in masks:
                part ^= self.word(number, some, skip) & mask
                part *= _MULTIPLIER
                part ^= part >> _HALF_WORD
        return keys


def position_masks(positions: Indices) -> list[tuple[int, np.uint64]]:
    """List the words that hold some positions of an insert, each with the mask that selects them."""
    numbers = positions // BASES
    return [
        (int(number), np.bitwise_or.reduce(_BASE << (positions[numbers == number] % BASES * BITS).astype(np.uint64)))
        for number in np.unique(numbers)
    ]


def differing_bases(left: Words, right: Words) -> Words:
    """Set the lowest bit of each base in which words differ: (n,)."""
    different = left ^ right
    different |= (different >> np.uint64(1)) | (different >> np.uint64(2))
    different &= _ONE_PER_BASE
    return different


def pack(inserts: pa.ChunkedArray | pa.Array) -> dict[int, Packed]:
    """Pack the inserts of a column, by their length, shortest first.

    Raises UserError for a null and for letters other than ACGTN.
    """
    if inserts.null_count:
        raise UserError(f"{inserts.null_count:,} of {len(inserts):,} inserts are null; expected letters {ALPHABET}")
    text, starts, lengths = string_buffers(inserts)
    order = np.argsort(lengths, kind="stable")
    sizes = np.bincount(lengths)
    packed = {}
    for length, end in enumerate(np.cumsum(sizes).tolist()):
        rows = order[end - sizes[length] : end]
        words = np.empty((-(-length // BASES), len(rows)), np.uint64)
        for start in range(0, len(rows), _READ):
            part = slice(start, start + _READ)
            words[:, part] = _words(_codes(text, starts[rows[part]], length))
        if len(rows):
            packed[length] = Packed(length, words, rows)
    return packed


def _codes(text: npt.NDArray[np.uint8], starts: Indices, length: int) -> npt.NDArray[np.uint8]:
    """Encode inserts of one length as 0 to 4 per base, 0 past their end: (n, length rounded up to whole words)."""
    codes = np.zeros((len(starts), -(-length // BASES) * BASES), np.uint8)
    if length:
        windows = np.lib.stride_tricks.sliding_window_view(text, length)[starts]
        codes[:, :length] = np.frombuffer(windows.tobytes().translate(_CODE), np.uint8).reshape(-1, length)
        if codes.max() >= len(ALPHABET):
            invalid = windows[(codes >= len(ALPHABET)).any(1).argmax()].tobytes().decode(errors="replace")
            raise UserError(f"insert {invalid!r}: expected letters {ALPHABET} only")
    return codes


def _words(codes: npt.NDArray[np.uint8]) -> Words:
    """Join codes, (n, 20 words), to words, (words, n): by twos and fours first, while a byte or two hold them."""
    twos = codes[:, 0::2] | codes[:, 1::2] << BITS
    fours = twos[:, 0::2] | twos[:, 1::2].astype(np.uint16) << 2 * BITS
    words = np.zeros((len(codes), codes.shape[1] // BASES), np.uint64)
    for place in range(BASES // 4):
        words |= fours[:, place :: BASES // 4].astype(np.uint64) << np.uint64(4 * BITS * place)
    return words.T
