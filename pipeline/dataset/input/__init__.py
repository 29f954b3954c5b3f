"""Rows in files as SQL sees them: which files (files), their layout (format), streams (stream), view `input` (view).

columns, cells, fasta_labels, parquet_head: which column is the sequence and which the label. repairs: which settings
repair invalid sequences.
"""
