"""Save and resume a stage: checkpoints of the training state, the best model, the Hugging Face export.

Entry points: `checkpoints.find_checkpoint` and `Checkpoints` (what the loop calls), `best_model.BestModel`.
"""
