"""Cost of k-mer ids and of writing shards."""
