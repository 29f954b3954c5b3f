"""Colours of figures, distinct for colour-blind readers (after Okabe and Ito), on light and on dark pages."""

BLUE, ORANGE, GREEN, PURPLE, BLACK = "#0072b2", "#d55e00", "#009e73", "#a8447f", "#000000"
PALE_BLUE, GREY, PALE_GREY = "#86bcd9", "#b4bac1", "#c3c9d0"
LINE_GREY = "#6b7280"
"""Colour of axes and zero lines."""
