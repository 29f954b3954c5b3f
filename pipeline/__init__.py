"""Rows in files -> DuckDB dataset -> k-mer shards -> batches. Knows nothing of the model."""
