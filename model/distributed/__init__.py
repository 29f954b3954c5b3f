"""Cooperation of ranks: process group, rendezvous, network interface, consensus on inputs and errors, stop signals.

Entry points: `join_group`, `run_on_rank0`, `broadcast`, `all_gather` (process_group), `agreed_index`, `error_consensus`
(consensus), `stop_requests` (stop_signals).
"""
