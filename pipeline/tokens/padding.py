"""Rows of different lengths side by side: copied by whole rows, then blanked past their ends."""

import numpy as np
import numpy.typing as npt

from pipeline.tokens.kmers import Ragged

PAD_TO = 8
"""Widths are rounded up to a multiple of this many bases, so that few shapes occur."""

Ids = npt.NDArray[np.unsignedinteger]
Numbers = npt.NDArray[np.int64]


def padded_width(lengths: Numbers) -> int:
    """The longest, rounded up to a multiple of PAD_TO."""
    return -(-int(lengths.max()) // PAD_TO) * PAD_TO


def padded_tokens(tokens: Ragged, picks: Numbers, lengths: Numbers) -> Ids:
    """Rows of ids side by side, 0 past each one's end: (len(picks), padded_width(lengths)).

    lengths: of all rows that are to get the same width.
    """
    width = padded_width(lengths)
    roomy = np.concatenate([tokens.values, np.zeros(width, tokens.values.dtype)])
    return padded_rows(roomy, tokens.offsets[picks], np.diff(tokens.offsets)[picks], width)


def padded_rows(values: Ids, starts: Numbers, lengths: Numbers, width: int) -> Ids:
    """values[starts[i] : starts[i] + lengths[i]] as row i, 0 past its end: (rows, width).

    width: no less than the longest. Past each start must lie `width` values, whatever they are.
    """
    if not width or not len(starts):
        return np.zeros((len(starts), width), values.dtype)
    # Each row is one item of `width` ids for numpy, which copies items whole; the rows lie over each other.
    item = np.dtype((np.void, width * values.itemsize))
    places = len(values) - width + 1
    rows: Ids = np.ndarray((places,), item, values, strides=values.strides)[starts].view(values.dtype)
    rows = rows.reshape(len(starts), width)
    shortest = int(lengths.min())
    if shortest < width:
        number = np.min_scalar_type(width)  # the smallest type compares the quickest
        inside = np.arange(shortest, width, dtype=number) < lengths[:, None].astype(number)
        rows[:, shortest:] *= inside.view(np.uint8)
    return rows
