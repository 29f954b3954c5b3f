"""Pad rows of different lengths: copied as rows of equal width, then zeroed past their ends."""

import numpy as np

from pipeline.tokens.kmers import Ids, Numbers, Ragged

PAD_TO = 8
"""Widths are rounded up to a multiple of this many bases, so that few shapes occur."""


def padded_width(lengths: Numbers) -> int:
    """Return the largest length, rounded up to a multiple of PAD_TO."""
    return -(-int(lengths.max()) // PAD_TO) * PAD_TO


def pad_tokens(tokens: Ragged, picks: Numbers, lengths: Numbers) -> Ids:
    """Pad the picked rows with 0: (len(picks), padded_width(lengths)).

    lengths: of all rows that get the same width.
    """
    width = padded_width(lengths)
    extended = np.concatenate([tokens.values, np.zeros(width, tokens.values.dtype)])
    return pad_rows(extended, tokens.offsets[picks], np.diff(tokens.offsets)[picks], width)


def pad_rows(values: Ids, starts: Numbers, lengths: Numbers, width: int) -> Ids:
    """Copy values[starts[i] : starts[i] + lengths[i]] to row i, padded with 0: (rows, width).

    width: at least the largest length. `width` values must follow each start, whatever they are.
    """
    if not width or not len(starts):
        return np.zeros((len(starts), width), values.dtype)
    # For numpy, each row is one item of `width` ids, which it copies at once; items overlap in `values`.
    item = np.dtype((np.void, width * values.itemsize))
    places = len(values) - width + 1
    rows: Ids = np.ndarray((places,), item, values, strides=values.strides)[starts].view(values.dtype)
    rows = rows.reshape(len(starts), width)
    shortest = int(lengths.min())
    if shortest < width:
        number = np.min_scalar_type(width)  # the smallest type compares fastest
        inside = np.arange(shortest, width, dtype=number) < lengths[:, None].astype(number)
        rows[:, shortest:] *= inside.view(np.uint8)
    return rows
