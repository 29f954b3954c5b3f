"""Measure the cost of a build and of the search for near-duplicates."""
