"""Stands in for torchvision, which mosaicml-streaming imports and never uses here: the real one brings CUDA along."""
