"""Train a run: `prepare` (find, check, open) -> `stage` (one stage to its end) -> `results` (score, write, publish).

Entry point: `train.train`, which does all three.
"""
