"""The process group of a run: rendezvous, collectives, network, stop signals, consensus on errors."""
