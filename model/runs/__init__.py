"""Run directories: files, metric log, status.json, and the fingerprint of a host.

Entry points: `open_run` (directory), `read_run` (read), `Tracker` (metric_log), `RunStatus` (status), `collect_facts`
(fingerprint), `publish_run` (publish).
"""
