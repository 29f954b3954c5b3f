"""Prediction of expression for files and sequences: inputs -> validate -> predictor -> writers.

Entry points: predictor.Predictor for sequences in memory, files.predict_files for files of any size.
"""
