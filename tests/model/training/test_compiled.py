"""torch.compile on both objectives, with a backend that stops before code is generated, which would take minutes."""

import itertools

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from transformers import BertForMaskedLM

from model.bert.build import build_regression_model, make_bert_config
from model.bert.device_batch import batch_to_device
from model.bert.objectives import FinetuneTask, PretrainTask
from model.bert.rng import make_generator
from pipeline.shards.index import read_index
from pipeline.stream.stream import RankSlice, ShardStream

pytestmark = pytest.mark.processes

CPU = torch.device("cpu")


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_compiled_once_for_all_lengths_with_the_same_losses_and_gradients(made, stage):
    """Whole, without breaks; a second time, for any shape, when a second shape comes."""
    torch._dynamo.reset()
    torch.manual_seed(0)
    index = read_index(made.shards)
    config = made.config.model_copy(update={"model": made.config.model.model_copy(update={"dropout": 0.0})})
    if stage == "pretrain":
        task = PretrainTask(BertForMaskedLM(make_bert_config(config, index)), 3, 0.15)
    else:
        task = FinetuneTask(build_regression_model(config, index, None), 3, 10.0, 2.0)
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(task, backend=counter, fullgraph=True)
    stream = ShardStream(made.shards, index, "finetune/train", 2, RankSlice())
    widths = set()
    for step in itertools.islice(stream.epoch(0), 15):
        (batch,) = step.micro_batches
        width = task.choose_width(batch, CPU)
        widths.add(width)
        here = batch_to_device(batch, width, task.draw(batch, make_generator(CPU, step.number)), CPU)
        found = []
        for form in (task, compiled):
            task.zero_grad()
            sums = form(here)
            sums.loss.backward()
            gradient = torch.cat([p.grad.flatten() for p in task.parameters() if p.grad is not None])
            found.append((sums.loss.item(), sums.count.item(), sums.correct.item(), gradient))
        assert found[1][0] == pytest.approx(found[0][0], rel=1e-5)
        assert found[1][1] == found[0][1]
        assert abs(found[1][2] - found[0][2]) <= 1  # a tie may fall the other way
        assert torch.allclose(found[1][3], found[0][3], rtol=1e-4, atol=1e-4)
    assert len(widths) >= 3
    assert counter.frame_count <= 2
