"""The names that mosaicml-streaming imports."""


def to_tensor(image: object) -> object:
    """Of images; there are none here."""
    raise NotImplementedError
