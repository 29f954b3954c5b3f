"""Optimizer of a stage and its learning-rate schedule.

Entry points: `optimizer.make_optimizer`, `schedule.LearningRate`.
"""
