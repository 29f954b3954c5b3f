"""Exact search for near-duplicate inserts and their clusters."""
