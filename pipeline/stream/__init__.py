"""Shards to batches for one rank: shuffle order, reader, batching, shard cache."""
