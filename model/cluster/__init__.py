"""Hosts of a cluster: checks before a training, restarts, and clean-up of processes.

Entry points: `check_hosts` (doctor) and `relaunch` (relaunch); probe and cleanup run on the hosts over ssh.
"""
