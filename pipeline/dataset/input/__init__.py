"""Rows in files as SQL sees them: which files and columns (files, format), streams (stream), the view `input` (view).

repairs: which setting repairs which reason code.
"""
