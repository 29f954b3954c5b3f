"""Benchmarks of training: rates on CPUs and GPUs, effect of large batches, cost of a whole job."""
