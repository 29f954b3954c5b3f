"""Exact search for near-duplicate inserts: all pairs within a number of mismatches or one indel, and their clusters.

Entry points: clusters.find_clusters and pairs.find_pairs.
"""
