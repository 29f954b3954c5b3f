"""Stub of torchvision: mosaicml-streaming imports it without use here, and the real one requires CUDA."""
