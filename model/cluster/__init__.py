"""Hosts of a cluster: checks before a training, restarts, and clean-up of processes.

Entry points: `check_hosts` and `check_job` (doctor), `relaunch` (relaunch) and slurm_job (examples/slurm); probe and
cleanup run on the hosts, over ssh or srun.
"""
