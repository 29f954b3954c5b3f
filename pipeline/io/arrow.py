"""Arrow columns as numpy arrays, without copies where possible."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa


def string_buffers(
    column: pa.ChunkedArray | pa.Array,
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the bytes (bytes,) of a string column, and the start and length (rows,) of each string in them."""
    strings = column.cast(pa.large_string())
    if isinstance(strings, pa.ChunkedArray):
        strings = strings.chunk(0) if strings.num_chunks == 1 else strings.combine_chunks()
    _, offset_buffer, data = strings.buffers()
    offsets = np.frombuffer(offset_buffer, np.int64, len(strings) + 1, 8 * strings.offset)
    text = np.frombuffer(data, np.uint8) if data is not None else np.empty(0, np.uint8)
    first, end = offsets[0], offsets[-1]  # a slice keeps the bytes of the whole column
    return text[first:end], offsets[:-1] - first, np.diff(offsets)
