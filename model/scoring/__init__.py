"""Scores of predictions: correlations, bootstrap intervals, the DREAM Challenge's score."""
