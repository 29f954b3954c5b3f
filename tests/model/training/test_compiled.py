"""torch.compile on both objectives, with a backend that generates no code, which would take minutes."""

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
def test_compiled_losses_and_gradients_equal_eager_ones_with_two_compilations(made, stage):
    """The graph has no breaks. The second shape causes a second compilation, which is valid for all shapes."""
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
        results = []
        for module in (task, compiled):
            task.zero_grad()
            sums = module(here)
            sums.loss.backward()
            gradient = torch.cat([p.grad.flatten() for p in task.parameters() if p.grad is not None])
            results.append((sums.loss.item(), sums.count.item(), sums.correct.item(), gradient))
        assert results[1][0] == pytest.approx(results[0][0], rel=1e-5)
        assert results[1][1] == results[0][1]
        assert abs(results[1][2] - results[0][2]) <= 1  # equal logits may be ordered differently
        assert torch.allclose(results[1][3], results[0][3], rtol=1e-4, atol=1e-4)
    assert len(widths) >= 3
    assert counter.frame_count <= 2
