"""Score predictions: correlations and errors, bootstrap intervals, the score of the DREAM Challenge.

Entry points: metrics.regression_scores, bootstrap.correlation_intervals, dream.dream_score, dream_files.score_files.
"""
