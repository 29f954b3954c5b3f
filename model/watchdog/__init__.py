"""A watchdog process beside each rank, which ends the rank when another rank, its host or the launcher is lost.

Entry point: `start_watchdog` (client), used where train.py and predict start a rank, and nowhere else.
torch's time-outs do not replace it: short ones end long saves and compilations, long ones let ranks wait for dead ones.
"""
