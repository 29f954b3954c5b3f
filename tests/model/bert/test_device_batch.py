import numpy as np
import pytest
import torch

from model.bert.device_batch import fit_width, to_device


@pytest.mark.parametrize("width", [0, 3, 5, 8])
@pytest.mark.parametrize(("stored", "expected"), [(np.uint8, np.uint8), (np.uint16, np.int32), (np.uint32, np.int32)])
def test_ids_are_cut_or_zero_padded_to_the_width(width, stored, expected):
    """On a GPU widths are rounded up, so they may exceed that of the batch."""
    tokens = np.arange(7, 17, dtype=stored).reshape(2, 5)
    fitted = fit_width(tokens, width)
    assert (fitted.dtype, fitted.shape) == (expected, (2, width))
    common = min(width, 5)
    np.testing.assert_array_equal(fitted[:, :common], tokens[:, :common])
    assert not fitted[:, common:].any()
    assert to_device(fitted, torch.device("cpu")).tolist() == fitted.tolist()
