"""Rows in files as SQL sees them: which files (files), their layout (format, table_head), and the view `input` (view).

Python opens and splits all files: compression, then lines, fasta, json_lines or tables, joined by stream. row_count
counts the rows without parsing them, as a check. columns, cells and fasta_labels find the columns of sequences and
labels. repairs finds the settings that repair invalid sequences.
"""
