"""Training of a run: `prepare` (find, check, open) -> `stage` (train one stage) -> `results` (score, write, publish).

Entry point: `train.train`, which calls all three.
"""
