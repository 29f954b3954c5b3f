"""The BERT of both stages, on top of transformers' classes.

Entry points: `build.build_task` (model and objective of a stage), `objectives` (losses), `flops` (cost of a step).
"""
