"""Padding: rows of different lengths are copied at equal width, then set to 0 after their ends."""

import numpy as np

from pipeline.tokens.kmers import Ids, Numbers, Ragged

PAD_TO = 8
"""Widths are multiples of this many bases, so that few shapes occur."""


def round_up_width(lengths: Numbers) -> int:
    """Round the largest of some lengths, (n,), up to a multiple of PAD_TO."""
    return -(-int(lengths.max()) // PAD_TO) * PAD_TO


def pad_tokens(tokens: Ragged, picks: Numbers, lengths: Numbers) -> Ids:
    """Pad selected rows with 0: (len(picks), round_up_width(lengths)) ids.

    picks: (n,) row numbers; lengths: (m,) lengths of all rows that share the width.
    """
    width = round_up_width(lengths)
    extended = np.concatenate([tokens.values, np.zeros(width, tokens.values.dtype)])
    return pad_rows(extended, tokens.offsets[picks], np.diff(tokens.offsets)[picks], width)


def pad_rows(values: Ids, starts: Numbers, lengths: Numbers, width: int) -> Ids:
    """Copy values[starts[i] : starts[i] + lengths[i]] to row i and pad it with 0: (rows, width).

    values: (n,) ids; starts, lengths: (rows,) int64; width: at least the largest length. At least `width` values must
    follow each start; those after a row's end are ignored.
    """
    if not width or not len(starts):
        return np.zeros((len(starts), width), values.dtype)
    # Each row is one numpy item of `width` ids, copied at once; the items overlap in `values`.
    item = np.dtype((np.void, width * values.itemsize))
    places = len(values) - width + 1
    rows: Ids = np.ndarray((places,), item, values, strides=values.strides)[starts].view(values.dtype)
    rows = rows.reshape(len(starts), width)
    longest, shortest = int(lengths.max()), int(lengths.min())
    rows[:, longest:] = 0
    if shortest < longest:
        _blank_ends(rows, lengths, shortest, longest)
    return rows


def _blank_ends(rows: Ids, lengths: Numbers, shortest: int, longest: int) -> None:
    """Set the ids of rows after their lengths to 0, up to the longest."""
    number = np.min_scalar_type(longest)  # the smallest type compares fastest
    short = np.flatnonzero(lengths < longest)
    which = slice(None) if 2 * len(short) > len(lengths) else short  # a selection copies its rows twice
    inside = np.arange(shortest, longest, dtype=number) < lengths[which, None].astype(number)
    rows[which, shortest:longest] *= inside.view(np.uint8)
