"""Write the terms, units and numbers that all pages share."""

from typing import TYPE_CHECKING

from pipeline.runtime.text import format_count

if TYPE_CHECKING:
    from pipeline.dataset.splits.split_leaks import SplitLeaks

ARBITRARY = "arbitrary units"
"""Unit of expression unless assay.unit says otherwise."""
ARBITRARY_TEXT = (
    "Expression is in arbitrary units of the assay. In the yeast DREAM Challenge, it is the average sorting bin, 0 "
    "to 17."
)
SHORT_KEY = 16
"""Characters of a key that are shown in a table."""
MOST_LEAKS = 0.02
"""Share of the held-out rows up to which those that resemble training rows hardly change a score."""


def with_unit(quantity: str, unit: str) -> str:
    """Add the unit of expression to the label of an axis, such as measured expression. unit: assay.unit."""
    return f"{quantity} ({unit or ARBITRARY})"


def unit_text(unit: str) -> str:
    """Say in which unit expression is. unit: assay.unit."""
    return f"The unit of expression is {unit}." if unit else ARBITRARY_TEXT


def format_percent(share: float, digits: int = 1) -> str:
    """Format a share between 0 and 1 in per cent, without trailing zeros, such as 24.2 % or 20 %.

    100 % means all: a share below 1 is at most 99.9 %.
    """
    percent = round(100 * share, digits)
    return f"{100 - 10**-digits if percent == 100 and share < 1 else percent:g} %"


def split_text(method: str, seed: int) -> str:
    """Name the split method. method: dataset.split; seed: dataset.seed."""
    return (
        "given by the input, in a column or as files" if method == "column" else f"{method} (seed {seed}: repeatable)"
    )


def count_leaks(leaks: "SplitLeaks") -> dict[str, int | None]:
    """Return what held-out rows have in common with training rows -> their number; None: not examined."""
    return {
        "have a near-duplicate in training": leaks.near_duplicates,
        "have their reverse complement there": leaks.reverse_complements,
        "share a run of 40 bases with a training row": leaks.shared_runs,
    }


def leaks_text(leaks: "SplitLeaks | None") -> str:
    """Say how many held-out rows resemble training rows; an empty text if none do, or none were examined."""
    if leaks is None:
        return ""
    counts = count_leaks(leaks)
    found = [f"{count:,} {what}" for what, count in counts.items() if count]
    if not found:
        return ""
    held_out = format_count(leaks.held_out, "validation or test row")
    is_many = max(filter(None, counts.values())) > MOST_LEAKS * leaks.held_out
    effect = "; the scores may be too high for new sequences" if is_many else ""
    return f"Of {held_out}, {' and '.join(found)}{effect}."
