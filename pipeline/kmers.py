"""k-mer ids of promoters: one id a base, at memory speed.

The vocabulary is five specials, then every k-mer over ACGTN as a number in base 5 (A 0, C 1, G 2, T 3, N 4):
k = 3 gives 130 tokens. Stored is the id of the k-mer that starts at each base (past the end stand Ns), so the
overlapping tokens are the array itself, and reading frame f is every k-th id from f on.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

ALPHABET = "ACGTN"
SPECIALS = ("[PAD]", "[CLS]", "[UNK]", "[SEP]", "[MASK]")
PAD, CLS, UNK, SEP, MASK = range(5)

_CODE = np.full(256, 255, np.uint8)
_CODE[np.frombuffer(ALPHABET.encode(), np.uint8)] = np.arange(5)
_LETTER = np.frombuffer(ALPHABET.encode(), np.uint8)


def vocabulary_size(k: int) -> int:
    """Number of ids: 5 specials and 5^k k-mers."""
    return len(SPECIALS) + int(5**k)


def id_dtype(k: int) -> np.dtype[np.unsignedinteger]:
    """The smallest unsigned type that holds every id."""
    return np.min_scalar_type(vocabulary_size(k) - 1)


def vocabulary(k: int) -> list[str]:
    """The tokens in the order of their ids."""
    digits = np.array(list(ALPHABET))
    number = np.arange(5**k)
    columns = [digits[number // 5**place % 5] for place in range(k - 1, -1, -1)]
    return [*SPECIALS, *("".join(letters) for letters in zip(*columns, strict=True))]


@dataclass(frozen=True)
class Ragged:
    """Rows of different lengths end to end: row i is values[offsets[i]:offsets[i + 1]]."""

    values: npt.NDArray[np.unsignedinteger]
    offsets: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def row(self, i: int) -> npt.NDArray[np.unsignedinteger]:
        """One row, as a view."""
        return self.values[self.offsets[i] : self.offsets[i + 1]]


def ids_of_inserts(
    text: npt.NDArray[np.uint8],
    starts: npt.NDArray[np.int64],
    lengths: npt.NDArray[np.int64],
    k: int,
    left_flank: str = "",
    right_flank: str = "",
) -> Ragged:
    """The ids of every insert between its flanks, one id a base of the extended sequence.

    text: ASCII bytes; insert i is text[starts[i] : starts[i] + lengths[i]]. Rows are worked on together by
    length; the flanks' own ids are computed once and pasted. Raises ValueError for letters other than ACGTN.
    """
    left, right = _codes(left_flank.encode()), _codes(right_flank.encode())
    totals = lengths + len(left) + len(right)
    offsets = np.concatenate([[0], np.cumsum(totals)]).astype(np.int64)
    values = np.empty(int(offsets[-1]), id_dtype(k))
    # Ids that begin in the left flank and reach into the insert depend on it; the others are always the same.
    fixed_left = max(len(left) - (k - 1), 0)
    left_ids = _stride_1(left[None, :], k)[0, :fixed_left]
    right_ids = _stride_1(np.concatenate([right, _padding(k)])[None, :], k)[0]
    for length in np.unique(lengths):
        rows = np.flatnonzero(lengths == length)
        block = np.empty((len(rows), len(left) + length + len(right)), values.dtype)
        block[:, :fixed_left] = left_ids
        block[:, len(left) + length :] = right_ids
        seam = np.empty((len(rows), len(left) - fixed_left + length + k - 1), np.uint8)
        insert_at = len(left) - fixed_left
        seam[:, :insert_at] = left[fixed_left:]
        codes = _CODE[text[starts[rows, None] + np.arange(length)]]
        if length and codes.max(initial=0) > 4:
            raise ValueError(f"letters other than {ALPHABET} in an insert")
        seam[:, insert_at : insert_at + length] = codes
        seam[:, insert_at + length :] = np.concatenate([right, _padding(k)])[: k - 1]
        block[:, fixed_left : len(left) + length] = _stride_1(seam, k)
        if len(rows) == len(lengths):
            values = block.reshape(-1)
        else:
            values[offsets[rows, None] + np.arange(block.shape[1])] = block
    return Ragged(values, offsets)


def ids_of_text(sequence: str, k: int) -> npt.NDArray[np.unsignedinteger]:
    """The ids of one sequence as it stands, one a base: (len(sequence),)."""
    text = np.frombuffer(sequence.encode(), np.uint8)
    return ids_of_inserts(text, np.zeros(1, np.int64), np.array([len(text)], np.int64), k).values


def text_of_ids(ids: npt.NDArray[np.unsignedinteger], k: int) -> str:
    """The bases that ids were made from: the first base of each k-mer."""
    letters = _LETTER[(ids.astype(np.int64) - len(SPECIALS)) // 5 ** (k - 1)]
    return bytes(letters).decode()


def _codes(text: bytes) -> npt.NDArray[np.uint8]:
    return _CODE[np.frombuffer(text, np.uint8)]


def _padding(k: int) -> npt.NDArray[np.uint8]:
    """The Ns that stand past the end of a sequence."""
    return np.full(k - 1, ALPHABET.index("N"), np.uint8)


def _stride_1(codes: npt.NDArray[np.uint8], k: int) -> npt.NDArray[np.unsignedinteger]:
    """(rows, width) base codes to the (rows, width - k + 1) ids of the k-mers wholly inside."""
    width = max(codes.shape[1] - k + 1, 0)
    # Horner's rule.
    ids = np.zeros((codes.shape[0], width), id_dtype(k))
    for i in range(k):
        ids *= 5
        ids += codes[:, i : i + width]
    ids += len(SPECIALS)
    return ids
