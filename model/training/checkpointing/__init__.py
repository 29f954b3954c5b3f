"""Checkpoints of the training state, the best model of a stage, and the Hugging Face export.

Entry points: `checkpoints.find_checkpoint` and `Checkpoints` (called by the training loop), `best_model.BestModel`.
"""
