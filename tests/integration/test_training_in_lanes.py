"""Training whose epochs have several lanes: stopped in mid-epoch, and resumed on other numbers of ranks."""

import json
from collections import Counter

import pytest

from model.runs.status import read_status
from tests.integration.test_resume import SCRATCH, check_same_training, copy, train  # noqa: F401

pytestmark = [pytest.mark.processes, pytest.mark.long, pytest.mark.timeout(900)]

LANES = {"LANE_ROWS": "200", "timeout": 400}
"""1,200 promoters in batches of 32: six lanes."""


def read_ids(workspace):
    """Read (epoch, step, ids) of every step of every rank, and remove the records."""
    files = sorted(workspace.folder.glob("trained-on-*"))
    lines = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    for file in files:
        file.unlink()
    return lines


def test_lanes_on_two_then_one_then_three_ranks_equal_one_uninterrupted_run(copy):  # noqa: F811
    train(copy, 1, *SCRATCH, "run.name=whole", **LANES)
    whole = {(epoch, step): ids for epoch, step, ids in read_ids(copy)}
    train(copy, 1, *SCRATCH, "run.name=one-lane", "finetune.max_epochs=1")
    one_lane = {(epoch, step): ids for epoch, step, ids in read_ids(copy)}
    assert whole[0, 0] != one_lane[0, 0]  # so there are lanes
    train(copy, 2, *SCRATCH, "run.name=parts", STOP_AT="0:12", **LANES)
    status = read_status(copy.folder / "runs" / "parts" / "status.json")
    assert status.items() >= {"state": "interrupted", "stage": "finetune", "step": 13}.items()
    train(copy, 1, *SCRATCH, "run.name=parts", STOP_AT="1:5", **LANES)
    train(copy, 3, *SCRATCH, "run.name=parts", **LANES)
    steps = {}
    for epoch, step, ids in read_ids(copy):
        steps.setdefault((epoch, step), []).extend(ids)
    assert {key: sorted(ids) for key, ids in steps.items()} == {key: sorted(ids) for key, ids in whole.items()}
    for epoch in (0, 1):
        times = Counter(i for (e, _), ids in steps.items() if e == epoch for i in ids)
        assert (len(times), set(times.values())) == (1200, {1})
    check_same_training(copy.folder / "runs" / "parts", copy.folder / "runs" / "whole")


def test_a_position_in_lanes_is_refused_with_another_global_batch(copy):  # noqa: F811
    train(copy, 1, *SCRATCH, STOP_AT="0:12", **LANES)
    again = train(copy, 1, *SCRATCH, "finetune.global_batch=48", check=False, **LANES)
    assert again.returncode == 1
    assert "Traceback" not in again.stderr
