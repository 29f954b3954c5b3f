"""Scores of BERT, CNN and ridge regression, with and without pretraining: the study of docs/results.md."""
