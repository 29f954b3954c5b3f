"""Exact search for near-duplicate inserts: all pairs within some mismatches or one indel, and their clusters.

Entry points: clusters.near_duplicate_clusters and pairs.pair_chunks.
"""
