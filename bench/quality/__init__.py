"""Study of docs/results.md: scores of BERT with and without pretraining, of a CNN and of ridge regression."""
