"""Streams of batches from shards: the same global batches on any number of ranks, with O(1) resume.

Entry points: stream.ShardStream and stream.StreamState; sources.choose_source for the shards of a configuration.
From file to batch: sources (or cache) -> reader -> batching, in the order of shuffle.
"""
