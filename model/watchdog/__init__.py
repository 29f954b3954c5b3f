"""Watchdog process beside each rank, which ends the rank when another rank, its host or the launcher is lost.

Entry point: `start_watchdog` (client), which only train.py and predict use when they start a rank.
torch's timeouts cannot replace it: short ones end long saves and compilations, and with long ones ranks wait for dead
ranks.
"""
