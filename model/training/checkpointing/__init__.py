"""Save and resume a stage: checkpoints of the training state, the best model, the Hugging Face export.

Entry points: `store.StageStore` (what the loop calls), `checkpoints.Checkpoints`, `best_model.BestModel`.
"""
