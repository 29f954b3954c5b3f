"""Write the terms, units and numbers that all pages share."""

ARBITRARY = "arbitrary units"
"""Unit of expression unless assay.unit says otherwise."""
ARBITRARY_TEXT = (
    "Expression is in arbitrary units of the assay. In the yeast DREAM Challenge, it is the average sorting bin, 0 "
    "to 17."
)
SHORT_KEY = 16
"""Characters of a key that are shown in a table."""


def with_unit(quantity: str, unit: str) -> str:
    """Add the unit of expression to the label of an axis, such as measured expression. unit: assay.unit."""
    return f"{quantity} ({unit or ARBITRARY})"


def unit_text(unit: str) -> str:
    """Say in which unit expression is. unit: assay.unit."""
    return f"The unit of expression is {unit}." if unit else ARBITRARY_TEXT


def format_percent(share: float, digits: int = 1) -> str:
    """Format a share between 0 and 1 in per cent, without trailing zeros, such as 24.2 % or 20 %."""
    return f"{round(100 * share, digits):g} %"


def split_text(method: str, seed: int) -> str:
    """Name the split method. method: dataset.split; seed: dataset.seed."""
    return (
        "given by the input, in a column or as files" if method == "column" else f"{method} (seed {seed}: repeatable)"
    )
