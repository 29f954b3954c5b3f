"""k-mer ids of promoters: one id per base, vectorized over sequences.

The vocabulary is five special tokens, then every k-mer over ACGTN as a number in base 5 (A 0, C 1, G 2, T 3, N 4):
k = 3 gives 130 tokens. Each base is stored as the id of the k-mer that starts there, with Ns after the end. So the
overlapping tokens are the array itself, and reading frame f is every k-th id from index f.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numpy.lib.stride_tricks import sliding_window_view

from pipeline.config.schema import Assay
from pipeline.io.arrow import view_strings

Ids = npt.NDArray[np.unsignedinteger]
Numbers = npt.NDArray[np.int64]
Letters = npt.NDArray[np.uint8]
"""ASCII bytes, or base codes: the index of a base in ALPHABET, 255 for any other letter."""

ALPHABET = "ACGTN"
SPECIALS = ("[PAD]", "[CLS]", "[UNK]", "[SEP]", "[MASK]")
PAD, CLS, UNK, SEP, MASK = range(5)

BLOCK_ROWS = 2048
"""Rows encoded per block: their letters and ids fit into the cache of the processor."""

_CODE = bytes(ALPHABET.find(chr(byte)) % 256 for byte in range(256))
_LETTER = np.frombuffer(ALPHABET.encode(), np.uint8)


def vocabulary_size(k: int) -> int:
    """Count the ids: 5 special tokens and 5^k k-mers."""
    return len(SPECIALS) + int(5**k)


def id_dtype(k: int) -> np.dtype[np.unsignedinteger]:
    """Return the smallest unsigned dtype that holds every id."""
    return np.min_scalar_type(vocabulary_size(k) - 1)


def vocabulary(k: int) -> list[str]:
    """List the tokens in the order of their ids."""
    return [*SPECIALS, *map("".join, product(ALPHABET, repeat=k))]


@dataclass(frozen=True)
class Ragged:
    """Rows of different lengths, concatenated: row i is values[offsets[i]:offsets[i + 1]].

    values: (sum of lengths,) ids, uint8, uint16 or uint32; offsets: (rows + 1,) int64, from 0, ascending.
    """

    values: Ids
    offsets: Numbers

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def row(self, i: int) -> Ids:
        """Return row i as a view: (length,)."""
        return self.values[self.offsets[i] : self.offsets[i + 1]]


def encode_promoters(
    sequences: pa.ChunkedArray | pa.Array, assay: Assay, k: int, memory: Letters | None = None
) -> Ragged:
    """Encode promoters, one id per base of the extended sequence: adapters are replaced by flanks.

    sequences: (n,) strings that are valid by sql/01_rules.sql, adapters included; memory: as in encode_inserts.
    Raises ValueError for letters other than ACGTN.
    """
    text, starts, lengths = view_strings(sequences)
    left, right = len(assay.left_adapter), len(assay.right_adapter)
    return encode_inserts(text, starts + left, lengths - left - right, k, assay.left_flank, assay.right_flank, memory)


def encode_inserts(
    text: Letters,
    starts: Numbers,
    lengths: Numbers,
    k: int,
    left_flank: str = "",
    right_flank: str = "",
    memory: Letters | None = None,
) -> Ragged:
    """Encode inserts between their flanks, one id per base of the extended sequence.

    text: (bytes,) uint8, ASCII; insert i is text[starts[i] : starts[i] + lengths[i]]; starts, lengths: (n,) int64.
    k-mers within a flank are encoded once and copied. k-mers that overlap an insert are encoded per row.
    memory: (bytes,) uint8, a buffer for the ids, used if it is large enough; the result is valid until its next use.
    Allocating new memory takes half as long as the encoding. Raises ValueError for letters other than ACGTN.
    """
    dtype = id_dtype(k)
    if not len(starts):
        return Ragged(np.empty(0, dtype), np.zeros(1, np.int64))
    left = np.frombuffer(left_flank.encode(), np.uint8)
    right = np.frombuffer((right_flank + "N" * (k - 1)).encode(), np.uint8)  # Ns follow the end of a sequence
    seam = min(k - 1, len(left))  # the k-mers of the left flank that reach into the insert
    left_ids, right_ids = _encode_flat(_encode_bases(left), k), _encode_flat(_encode_bases(right), k)
    offsets = np.zeros(len(starts) + 1, np.int64)
    np.cumsum(lengths + (len(left) + len(right_flank)), out=offsets[1:])
    # Rows are written in windows as wide as the longest row, so the last row needs space after it.
    size_bytes = int(offsets[-1] + lengths.max()) * dtype.itemsize
    if memory is None or len(memory) < size_bytes:
        memory = np.empty(size_bytes, np.uint8)
    values = memory[:size_bytes].view(dtype)
    for rows in _split_by_length(lengths, len(left_ids) + len(right_ids)):
        ids = _encode_between(text, starts[rows], lengths[rows], left[len(left) - seam :], right[: k - 1], k)
        _view_windows(values, ids.shape[1])[offsets[rows] + len(left_ids)] = ids
    _view_windows(values, len(left_ids))[offsets[:1]] = left_ids
    adjacent = np.concatenate([right_ids, left_ids])  # of a row and of the next one
    _view_windows(values, len(adjacent))[offsets[1:-1] - len(right_ids)] = adjacent
    _view_windows(values, len(right_ids))[offsets[-1:] - len(right_ids)] = right_ids
    return Ragged(values[: offsets[-1]], offsets)


def _split_by_length(lengths: Numbers, span: int) -> Iterator[Numbers]:
    """Split rows into blocks of at most BLOCK_ROWS whose lengths differ by at most `span`.

    The window of a short row holds up to `span` bases too many. They lie within the flanks, which are written later.
    """
    for least in range(int(lengths.min()), int(lengths.max()) + 1, span + 1):
        rows = np.flatnonzero((lengths >= least) & (lengths <= least + span))
        yield from (rows[first : first + BLOCK_ROWS] for first in range(0, len(rows), BLOCK_ROWS))


def _encode_between(text: Letters, starts: Numbers, lengths: Numbers, before: Letters, after: Letters, k: int) -> Ids:
    """Encode the k-mers that start in `before` or in the insert: (rows, len(before) + longest insert).

    after: the k - 1 bases after an insert. Values after the end of a shorter insert are undefined.
    """
    rows, longest = len(starts), int(lengths.max())
    end = len(before) + longest
    bases = np.empty((rows, end + len(after)), np.uint8)
    bases[:, : len(before)] = before
    if int(starts.max()) + longest > len(text):
        text = np.concatenate([text, np.full(longest, ord("N"), np.uint8)])
    bases[:, len(before) : end] = _view_windows(text, longest)[starts]
    bases[:, end:] = after
    if int(lengths.min()) < longest and len(after):
        ends = np.arange(rows) * bases.shape[1] + len(before) + lengths
        _view_windows(bases.reshape(-1), len(after))[ends] = after
    codes = _encode_bases(bases)
    if codes.max(initial=0) >= len(ALPHABET):  # perhaps only after the end of a shorter insert
        inside = np.arange(codes.shape[1]) < lengths[:, None] + (len(before) + len(after))
        if (codes[inside] >= len(ALPHABET)).any():
            raise ValueError(f"letters other than {ALPHABET} in an insert")
    # All rows are encoded as one text; k-mers that span two rows are dropped afterwards.
    ids = np.empty(bases.size, id_dtype(k))
    ids[: bases.size - k + 1] = _encode_flat(codes.reshape(-1), k)
    return ids.reshape(bases.shape)[:, :end]


def _view_windows(values: npt.NDArray[Any], width: int) -> npt.NDArray[Any]:
    """View all windows of `width` values: (len(values) - width + 1, width)."""
    if not width:
        return np.empty((len(values) + 1, 0), values.dtype)
    return sliding_window_view(values, width, writeable=values.flags.writeable)


def encode_text(sequence: str, k: int) -> Ids:
    """Encode one sequence without flanks, one id per base: (len(sequence),). Raises ValueError as encode_inserts."""
    text = np.frombuffer(sequence.encode(), np.uint8)
    return encode_inserts(text, np.zeros(1, np.int64), np.array([len(text)], np.int64), k).values


def decode_ids(ids: Ids, k: int) -> str:
    """Decode ids, (n,), to n bases: the first base of each k-mer."""
    return bytes(_LETTER[(ids.astype(np.int64) - len(SPECIALS)) // 5 ** (k - 1)]).decode()


def _encode_bases(bases: Letters) -> Letters:
    """Map bases to 0 to 4 and other letters to 255; bytes.translate is the fastest lookup."""
    return np.frombuffer(bases.tobytes().translate(_CODE), np.uint8).reshape(bases.shape)


def _encode_flat(codes: Letters, k: int) -> Ids:
    """Encode all complete k-mers of base codes: (max(len(codes) - k + 1, 0),)."""
    width = max(len(codes) - k + 1, 0)
    ids = codes[:width].astype(id_dtype(k))
    for i in range(1, k):  # Horner's rule
        ids *= 5
        ids += codes[i : i + width]
    ids += len(SPECIALS)
    return ids
