"""Number of steps and of exchanges of stop requests in an evaluation."""

import pytest
import torch
import torch.distributed as dist

from model.bert.build import build_task
from model.distributed.process_group import World
from model.training import evaluate as evaluation
from model.training import prepare
from model.training.evaluate import STOP_EVERY, evaluate
from model.training.prepare import EVALUATION_BATCH, EVALUATION_MICRO_BATCH, RankData
from pipeline.shards.index import read_index

CPU = torch.device("cpu")


@pytest.fixture
def group():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def count_stops(made, monkeypatch, batch, every, stage):
    """Evaluate the validation split of a stage. Returns the evaluation and the number of exchanges."""
    monkeypatch.setattr(prepare, "EVALUATION_BATCH", {"cpu": batch})
    monkeypatch.setattr(evaluation, "STOP_EVERY", {"cpu": every})
    index, asked = read_index(made.shards), []
    torch.manual_seed(0)
    data = RankData(made.shards, index, World(0, 1, CPU), 0, lambda problem: problem)
    result = evaluate(build_task(made.config, index, stage), f"{stage}/valid", data, 16, lambda: asked.append(1))
    return result, len(asked)


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_stop_is_exchanged_every_few_steps(made, monkeypatch, group, stage):
    rows = read_index(made.shards).rows(f"{stage}/valid")
    steps = -(-rows // 20)
    assert steps >= 5
    each, asked = count_stops(made, monkeypatch, 20, 1, stage)
    assert asked == steps
    some, asked = count_stops(made, monkeypatch, 20, 3, stage)
    assert asked == steps // 3
    assert some.values == each.values
    large, asked = count_stops(made, monkeypatch, rows, 1, stage)
    assert asked == 1
    if stage == "finetune":  # in pretraining, the masks depend on the batch
        assert large.values == pytest.approx(each.values, rel=1e-5)


def test_an_evaluation_of_the_challenges_split_has_ten_steps_on_a_gpu():
    """152,786 promoters; 16 ranks with 1,024 promoters each per step; one exchange of stop requests."""
    steps = -(-152_786 // EVALUATION_BATCH["cuda"])
    assert (steps, steps // STOP_EVERY["cuda"]) == (10, 1)
    assert EVALUATION_BATCH["cuda"] == 16 * EVALUATION_MICRO_BATCH["cuda"]
    assert EVALUATION_BATCH["cpu"] == 1024
