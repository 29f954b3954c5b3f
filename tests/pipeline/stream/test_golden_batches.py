"""Batches of streams with a single lane equal those of earlier versions, bit by bit."""

import hashlib

import numpy as np
import pytest

from pipeline.stream.stream import RankSlice, ShardStream
from tests.pipeline.stream.tiny_shards import SPLIT, write_tiny

SHAPE = [[7, 9, 30, 2], [1] * 12, [25, 3], [8, 8, 8, 8, 8, 8, 5]] * 3


def hash_batches(folder, index, batch, ranks, shuffle, reverse, seed):
    """Hash all fields of all batches of all ranks, in three epochs of which two begin later."""
    sha256 = hashlib.sha256()
    for rank in range(ranks):
        stream = ShardStream(folder, index, SPLIT, batch, RankSlice(rank, ranks, 2), seed, shuffle, reverse)
        for epoch, consumed in ((0, 0), (3, 2 * batch), (1, min(5, stream.rows))):
            for step in stream.epoch(epoch, consumed):
                sha256.update(repr((step.epoch, step.number, step.consumed)).encode())
                for part in step.micro_batches:
                    facts = part.tokens.shape, str(part.tokens.dtype), part.first_row, part.global_rows
                    sha256.update(repr(facts).encode())
                    for name in ("tokens", "lengths", "expression", "id", "weight", "global_lengths"):
                        sha256.update(np.ascontiguousarray(getattr(part, name)).tobytes())
    return sha256.hexdigest()[:16]


@pytest.mark.parametrize(
    ("longest", "k", "zstd", "expected"),
    [
        (12, 3, False, ["b44a41fae5adca6c", "ee89b97e2a7f9f6d", "133019127ceca315"]),
        (40, 4, False, ["96a4f78a26980deb", "e654fa2ee081047e", "dfdf55c58e09c2be"]),
        (25, 7, True, ["8df95deac8dfba9f", "a7a2409bcf86ab67", "4a48013fdbf48f53"]),
    ],
)
def test_batches_equal_those_of_earlier_versions(tmp_path, longest, k, zstd, expected):
    index = write_tiny(tmp_path, SHAPE, longest, k, zstd)
    settings = [(7, 1, True, False, 1), (32, 3, True, True, 2**32), (64, 2, False, True, 0)]
    assert [hash_batches(tmp_path, index, *one) for one in settings] == expected
