"""Batches -> BERT -> checkpoints -> predictions -> scores. Reaches the data through pipeline/."""
