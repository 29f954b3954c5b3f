"""Helpers without domain knowledge, for every layer.

Entry points: prefetch.prefetch (a background thread), workers.worker_pool (processes), progress.progress,
text.format_count.
"""
