"""Rows in files as SQL sees them: which files and columns (files, format, table_head), and the view `input` (view).

Python opens and splits all files: compression, then lines, fasta, json_lines or tables, joined by stream. row_count
counts their rows in another way. repairs: which setting repairs which reason code.
"""
