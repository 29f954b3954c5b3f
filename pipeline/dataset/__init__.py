"""Rows in files to dataset.duckdb: input formats, row rules, splits, queries."""
