"""Predictions for files and sequences: inputs -> validate -> predictor -> writer."""
