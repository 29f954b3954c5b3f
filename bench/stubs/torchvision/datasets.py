"""The names that mosaicml-streaming imports."""


class VisionDataset:
    """A base class of its image datasets."""
