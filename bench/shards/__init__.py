"""Benchmarks of k-mer encoding and shard writing."""
