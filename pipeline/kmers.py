"""k-mer ids of promoters: one id a base, at memory speed.

The vocabulary is five specials, then every k-mer over ACGTN as a number in base 5 (A 0, C 1, G 2, T 3, N 4):
k = 3 gives 130 tokens. Stored is the id of the k-mer that starts at each base (past the end stand Ns), so the
overlapping tokens are the array itself, and reading frame f is every k-th id from f on.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

ALPHABET = "ACGTN"
SPECIALS = ("[PAD]", "[CLS]", "[UNK]", "[SEP]", "[MASK]")
PAD, CLS, UNK, SEP, MASK = range(5)

_CODE = bytes(ALPHABET.find(chr(byte)) % 256 for byte in range(256))
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

    text: ASCII bytes; insert i is text[starts[i] : starts[i] + lengths[i]]. Ids wholly inside an insert are cut out of
    the ids of the whole text, the flanks' own are computed once and pasted, and only the k - 1 on either seam are
    computed for each row. Raises ValueError for letters other than ACGTN.
    """
    codes = _codes(text.tobytes())
    _check_letters(codes, starts, lengths)
    left, right = _codes(left_flank.encode()), np.concatenate([_codes(right_flank.encode()), _padding(k)])
    inside = _stride_1(codes[None, :], k)[0]
    totals = lengths + len(left) + len(right_flank)
    offsets = np.concatenate([[0], np.cumsum(totals)]).astype(np.int64)
    values = np.empty(int(offsets[-1]), id_dtype(k))
    groups = np.unique(lengths)
    for length in groups:
        rows = slice(None) if len(groups) == 1 else np.flatnonzero(lengths == length)
        block = _ids_of_one_length(codes, inside, starts[rows], int(length), left, right, k)
        if len(groups) == 1:
            values = block.reshape(-1)
        elif block.shape[1]:
            sliding_window_view(values, block.shape[1], writeable=True)[offsets[:-1][rows]] = block
    return Ragged(values, offsets)


def _ids_of_one_length(
    codes: npt.NDArray[np.uint8],
    inside: npt.NDArray[np.unsignedinteger],
    starts: npt.NDArray[np.int64],
    length: int,
    left: npt.NDArray[np.uint8],
    right: npt.NDArray[np.uint8],
    k: int,
) -> npt.NDArray[np.unsignedinteger]:
    """Ids of inserts that are equally long: (rows, left + length + right without its padding).

    codes: of the whole text; inside: its ids; right: the flank's codes and the padding past the end.
    """
    rows, reach = len(starts), k - 1
    if length < k:  # no window lies wholly inside: lay the whole sequence out
        inserts = sliding_window_view(codes, length)[starts] if length else np.empty((rows, 0), np.uint8)
        return _stride_1(np.concatenate([_repeated(left, rows), inserts, _repeated(right, rows)], 1), k)
    block = np.empty((rows, len(left) + length + len(right) - reach), inside.dtype)
    seam = max(len(left) - reach, 0)  # ids from here to the insert reach into it
    first_inside, last_inside = len(left), len(left) + length - reach
    block[:, :seam] = _stride_1(left[None, :], k)
    block[:, first_inside:last_inside] = sliding_window_view(inside, length - reach)[starts]
    if reach:
        ends = sliding_window_view(codes, reach)
        heads = np.concatenate([_repeated(left[seam:], rows), ends[starts]], 1)
        tails = np.concatenate([ends[starts + length - reach], _repeated(right[:reach], rows)], 1)
        block[:, seam:first_inside] = _stride_1(np.asfortranarray(heads), k)
        block[:, last_inside : len(left) + length] = _stride_1(np.asfortranarray(tails), k)
    block[:, len(left) + length :] = _stride_1(right[None, :], k)
    return block


def _repeated(codes: npt.NDArray[np.uint8], rows: int) -> npt.NDArray[np.uint8]:
    return np.broadcast_to(codes, (rows, len(codes)))


def _check_letters(codes: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]) -> None:
    wrong = codes > len(ALPHABET) - 1
    if wrong.any():
        before = np.concatenate([[0], np.cumsum(wrong)])
        if (before[starts + lengths] > before[starts]).any():
            raise ValueError(f"letters other than {ALPHABET} in an insert")


def ids_of_text(sequence: str, k: int) -> npt.NDArray[np.unsignedinteger]:
    """The ids of one sequence as it stands, one a base: (len(sequence),)."""
    text = np.frombuffer(sequence.encode(), np.uint8)
    return ids_of_inserts(text, np.zeros(1, np.int64), np.array([len(text)], np.int64), k).values


def text_of_ids(ids: npt.NDArray[np.unsignedinteger], k: int) -> str:
    """The bases that ids were made from: the first base of each k-mer."""
    letters = _LETTER[(ids.astype(np.int64) - len(SPECIALS)) // 5 ** (k - 1)]
    return bytes(letters).decode()


def _codes(text: bytes) -> npt.NDArray[np.uint8]:
    """0 to 4 for the bases, 255 for anything else; bytes.translate is the quickest table there is."""
    return np.frombuffer(text.translate(_CODE), np.uint8)


def _padding(k: int) -> npt.NDArray[np.uint8]:
    """The Ns that stand past the end of a sequence."""
    return np.full(k - 1, ALPHABET.index("N"), np.uint8)


def _stride_1(codes: npt.NDArray[np.uint8], k: int) -> npt.NDArray[np.unsignedinteger]:
    """(rows, width) base codes to the (rows, width - k + 1) ids of the k-mers wholly inside."""
    width = max(codes.shape[1] - k + 1, 0)
    # Horner's rule.
    # A few columns of many rows come in Fortran order: numpy then runs along the rows.
    ids = np.zeros((codes.shape[0], width), id_dtype(k), order="C" if codes.flags.c_contiguous else "F")
    for i in range(k):
        ids *= 5
        ids += codes[:, i : i + width]
    ids += len(SPECIALS)
    return ids
