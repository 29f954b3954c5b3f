"""Write the terms, units and numbers that all pages share."""

EXPRESSION = "measured expression (arbitrary units)"
EXPRESSION_UNIT = (
    "Expression is in arbitrary units of the assay. In the yeast DREAM Challenge, it is the average sorting bin, 0 "
    "to 17."
)
SHORT_KEY = 16
"""Characters of a key that are shown in a table."""


def format_percent(share: float, digits: int = 1) -> str:
    """Format a share between 0 and 1 in per cent, without trailing zeros, such as 24.2 % or 20 %."""
    return f"{round(100 * share, digits):g} %"
