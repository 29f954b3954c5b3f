"""Benchmarks of the stream: rate, quality of the shuffle, and exactly-once reading after kills."""
