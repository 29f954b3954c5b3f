"""Baselines on the dataset and splits of a run: ridge regression on k-mer counts, and a convolutional network.

Entry points: train_baseline (train), fit_ridge (ridge), CnnTraining (cnn).
"""
