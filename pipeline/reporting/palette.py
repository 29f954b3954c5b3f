"""Colours of figures, chosen to be distinct for colour-blind readers (palette of Okabe and Ito)."""

BLUE, ORANGE, GREEN, PURPLE, BLACK = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#000000"
PALE_BLUE, GREY, PALE_GREY = "#cce3f0", "#b4bac1", "#d5d9dd"
LINE_GREY = "#6b7280"
"""Colour of axes and zero lines."""
