"""Cost of building a dataset, and of the search for near-duplicates."""
