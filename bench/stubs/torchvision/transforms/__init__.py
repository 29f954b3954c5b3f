"""The names that mosaicml-streaming imports."""
