"""Watchdog process beside each rank, which ends the rank when another rank, its host or the launcher is lost.

Entry point: `start_watchdog` (client), which only train.py and predict use when they start a rank.
torch's timeouts cannot replace it. A short timeout would end long saves and compilations. With a long timeout, ranks
wait for dead ranks.
"""
