"""Cooperation of ranks: process group, rendezvous, network interface, consensus on inputs and errors, stop signals.

Entry points: `join_group`, `run_on_rank0`, `broadcast`, `all_gather` (process_group), `agree_on_index` and
`make_error_consensus`, `make_fact_exchange` (consensus), `catch_stop_signals` (stop_signals).
"""
