"""Rows in files as SQL sees them: which files (files), their layout (format, table_head), and the view `input` (view).

Python opens and splits all files: compression, then lines, fasta, json_lines or tables, joined by stream. row_count
counts their rows in another way. columns, cells, fasta_labels: which column is the sequence and which the
label. repairs: which settings repair invalid sequences.
"""
