"""Predicted effects of variants: the prediction of the alternative sequence minus that of the reference sequence.

Entry points: effects.variant_effects for sequences in memory, files.predict_variants for tables of any size.
"""
