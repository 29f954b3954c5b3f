"""Generated promoters with a known score ceiling.

Entry points: generate.generate, ceiling.score_against_ceiling.
"""
