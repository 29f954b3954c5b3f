"""Grouped splits, and what held-out rows of any split have in common with training rows."""
