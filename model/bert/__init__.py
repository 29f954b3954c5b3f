"""BERT and training objectives of both stages, built on transformers' classes.

Entry points: `build.build_task` (model and objective of a stage), `objectives` (losses), `flops` (cost of a step).
"""
