"""Scores of predictions: correlations, errors, bootstrap intervals, and the DREAM Challenge score.

Entry points: metrics.regression_scores, bootstrap.correlation_intervals, dream.dream_score, dream_files.score_files.
"""
