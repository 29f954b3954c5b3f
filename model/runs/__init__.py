"""The run directory: its files, their readers, the metric log, the fingerprint of host and code."""
