import numpy as np
import pytest
import torch

from model.bert.device_batch import fit_width, to_device


@pytest.mark.parametrize("width", [0, 3, 5, 8])
@pytest.mark.parametrize(("stored", "given"), [(np.uint8, np.uint8), (np.uint16, np.int32), (np.uint32, np.int32)])
def test_ids_are_cut_or_padded_with_zeros_to_the_width(width, stored, given):
    """Wider than the batch is what a GPU asks for, whose widths are rounded up."""
    tokens = np.arange(7, 17, dtype=stored).reshape(2, 5)
    fitted = fit_width(tokens, width)
    assert (fitted.dtype, fitted.shape) == (given, (2, width))
    shared = min(width, 5)
    np.testing.assert_array_equal(fitted[:, :shared], tokens[:, :shared])
    assert not fitted[:, shared:].any()
    assert to_device(fitted, torch.device("cpu")).tolist() == fitted.tolist()
