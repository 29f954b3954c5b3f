"""Runs that inserts share on either strand, against a dictionary of all runs."""

from collections import defaultdict
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.near_duplicates import search, spill
from pipeline.near_duplicates.runs import find_shared_runs, name_shared_run
from pipeline.near_duplicates.spill import Workspace
from tests.pipeline.near_duplicates.strands import by_length, reverse_complement


def runs_of(insert, length):
    runs = (insert[start : start + length] for start in range(len(insert) - length + 1))
    return {min(run, reverse_complement(run)) for run in runs if "N" not in run}


def shared_by_definition(inserts, length):
    rows_of = defaultdict(set)
    for row, insert in enumerate(inserts):
        for run in runs_of(insert, length):
            rows_of[run].add(row)
    return {frozenset(rows) for rows in rows_of.values() if len(rows) > 1}


def shared(inserts, length, memory_bytes=1 << 30):
    found = find_shared_runs(lambda: by_length(inserts), length, len(inserts), Workspace(memory_bytes))
    return {frozenset(bucket.tolist()) for buckets in found for bucket in np.split(buckets.members, buckets.starts[1:])}


@st.composite
def overlaps(draw):
    """Draw pieces of a few regions, on either strand, with some N."""
    regions = draw(st.lists(st.text("ACGT", min_size=30, max_size=90), min_size=1, max_size=3))
    inserts = draw(st.lists(st.text("ACGTN", max_size=50), max_size=5))
    for _ in range(draw(st.integers(0, 12))):
        region = draw(st.sampled_from(regions))
        start = draw(st.integers(0, len(region) - 1))
        piece = region[start : start + draw(st.integers(1, 70))]
        inserts.append(reverse_complement(piece) if draw(st.booleans()) else piece)
    return inserts


@settings(deadline=None, max_examples=60)
@given(overlaps(), st.sampled_from([1, 2, 7, 15, 19, 20, 21, 31, 32, 33, 40, 64, 65]))
def test_shared_runs_are_those_of_the_definition_for_any_memory(inserts, length):
    expected = shared_by_definition(inserts, length)
    assert shared(inserts, length) == expected
    with (
        patch.object(spill, "MAX_PARTITIONS", 4),
        patch.object(spill, "CHUNK_BYTES", 100),
        patch.object(search, "BATCH", 3),
    ):
        assert shared(inserts, length, memory_bytes=2000) == expected


@pytest.mark.parametrize("length", [15, 20, 40])
def test_five_thousand_inserts_share_the_runs_of_the_definition(length):
    random = np.random.default_rng(length)
    regions = ["".join(random.choice(list("ACGT"), 300)) for _ in range(150)]
    inserts = []
    for _ in range(5000):
        region, start = regions[random.integers(150)], random.integers(0, 220)
        piece = region[start : start + random.integers(30, 81)]
        if random.random() < 0.5:
            piece = reverse_complement(piece)
        inserts.append(piece if random.random() < 0.5 else "".join(random.choice(list("ACGTN"), 80)))
    expected = shared_by_definition(inserts, length)
    assert len(expected) > 1500
    assert shared(inserts, length) == expected
    assert shared(inserts, length, memory_bytes=1 << 20) == expected


def test_shared_run_is_named_as_in_the_first_insert():
    run = "ACGTTGCAAGGCTTA"
    assert name_shared_run([f"TT{run}C", f"G{reverse_complement(run)}", run], 15) == run
    assert name_shared_run([run, "C" * 20], 15) == ""
