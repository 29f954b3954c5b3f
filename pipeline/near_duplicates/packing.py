"""Inserts packed into machine words: 3 bits per base, 20 bases per 64-bit word, for inserts of one length.

One exclusive or compares 20 bases of two inserts, and one mask per word selects any set of positions. N equals only N.
20 bases take 8 bytes.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.errors import UserError
from pipeline.tokens.kmers import ALPHABET

Indices = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]

BITS = 3
BASES = 20
"""Bases per word."""

_CODE = bytes(ALPHABET.find(chr(byte)) % 256 for byte in range(256))
_COMPLEMENT = np.array([3, 2, 1, 0, 4], np.uint8)
_BASE = np.uint64((1 << BITS) - 1)
_ONE_PER_BASE = np.uint64(sum(1 << BITS * base for base in range(BASES)))
_SHIFT = np.uint64(BITS)
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_HALF_WORD = np.uint64(32)

_BATCH = 1 << 17
"""Inserts hashed per batch: a few megabytes of temporary memory."""


@dataclass(frozen=True)
class Packed:
    """Inserts of one length.

    words: (ceil(length / 20), n) uint64; base i is the 3 bits from bit 3 * (i % 20) of word i // 20, other bits are 0;
    rows: (n,) int64: the row of each insert.
    """

    length: int
    words: Words
    rows: Indices
    reverse: npt.NDArray[np.bool_] | None = None
    """Whether the words are those of the reverse complement of the insert of the row: (n,); None: of no row."""

    def word(self, number: int, members: Indices, skip: int = 0) -> Words:
        """Read word `number` of some inserts, without their first `skip` (0 or 1) bases: (len(members),) uint64."""
        bases: Words = self.words[number][members]
        if not skip:
            return bases
        bases >>= _SHIFT
        if number + 1 < len(self.words):
            bases |= (self.words[number + 1][members] & _BASE) << np.uint64(BITS * (BASES - 1))
        return bases

    def keys(self, members: Indices, positions: Indices, group: Words | None = None, skip: int = 0) -> Words:
        """Hash the bases at some positions together with a group: (len(members),) uint64.

        members: (n,) int64 indices of inserts; group: (n,) uint64 or None; positions: (p,) int64; skip: as in `word`.
        """
        keys = np.zeros(len(members), np.uint64) if group is None else group * _MULTIPLIER
        masks = make_masks(positions)
        for start in range(0, len(members), _BATCH):
            part, chunk = keys[start : start + _BATCH], members[start : start + _BATCH]
            for number, mask in masks:
                part ^= self.word(number, chunk, skip) & mask
                part *= _MULTIPLIER
                part ^= part >> _HALF_WORD
        return keys


def make_masks(positions: Indices) -> list[tuple[int, np.uint64]]:
    """Make the masks that select some positions of an insert: pairs of word number and mask.

    positions: (p,) int64.
    """
    numbers = positions // BASES
    return [
        (int(number), np.bitwise_or.reduce(_BASE << (positions[numbers == number] % BASES * BITS).astype(np.uint64)))
        for number in np.unique(numbers)
    ]


def mark_differences(left: Words, right: Words) -> Words:
    """Mark the bases in which words differ by the lowest of their 3 bits: (n,) uint64.

    left, right: (n,) uint64.
    """
    different = left ^ right
    different |= (different >> np.uint64(1)) | (different >> np.uint64(2))
    different &= _ONE_PER_BASE
    return different


def encode(text: npt.NDArray[np.uint8], starts: Indices, length: int) -> npt.NDArray[np.uint8]:
    """Encode inserts of one length as codes 0 to 4 per base: (n, length) uint8.

    text: (bytes,) uint8; insert i is text[starts[i] : starts[i] + length]. Raises UserError for letters other than
    ACGTN.
    """
    if not length or not len(starts):
        return np.zeros((len(starts), length), np.uint8)
    windows = np.lib.stride_tricks.sliding_window_view(text, length)[starts]
    codes = np.frombuffer(windows.tobytes().translate(_CODE), np.uint8).reshape(-1, length)
    if codes.max() >= len(ALPHABET):
        invalid = windows[(codes >= len(ALPHABET)).any(1).argmax()].tobytes().decode(errors="replace")
        raise UserError(f"insert {invalid!r}: expected letters {ALPHABET} only")
    return codes


def reverse_complement(codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Reverse and complement codes: (n, length) uint8 each."""
    return _COMPLEMENT[codes[:, ::-1]]


def pack(codes: npt.NDArray[np.uint8]) -> Words:
    """Pack codes, (n, length) uint8, into words: (ceil(length / 20), n) uint64."""
    padded = np.zeros((len(codes), -(-codes.shape[1] // BASES) * BASES), np.uint8)
    padded[:, : codes.shape[1]] = codes
    return _pack_words(padded)


def _pack_words(codes: npt.NDArray[np.uint8]) -> Words:
    """Pack codes, (n, 20 * words) uint8, into (words, n) uint64."""
    # Two and four bases are joined in 8 and 16 bits first: narrow arrays are faster.
    twos = codes[:, 0::2] | codes[:, 1::2] << BITS
    fours = twos[:, 0::2] | twos[:, 1::2].astype(np.uint16) << 2 * BITS
    words = np.zeros((len(codes), codes.shape[1] // BASES), np.uint64)
    for place in range(BASES // 4):
        words |= fours[:, place :: BASES // 4].astype(np.uint64) << np.uint64(4 * BITS * place)
    return words.T
