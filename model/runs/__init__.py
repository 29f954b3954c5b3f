"""Run directories: their files, the metric log, status.json, and the fingerprint of a host.

Entry points: `open_run` (directory), `read_run` (read), `Tracker` (metric_log), `RunStatus` (status), `facts_of`
(fingerprint), `publish_run` (publish).
"""
