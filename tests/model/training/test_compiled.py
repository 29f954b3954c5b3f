"""torch.compile on both objectives, with a backend that generates no code, which would take minutes."""

import contextlib
import copy
import itertools

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from model.bert import length_cut
from model.bert.build import build_task
from model.bert.device_batch import batch_to_device, pass_to_device
from model.bert.fused_attention import fuse_projections
from model.bert.rng import make_generator
from pipeline.shards.index import read_index
from pipeline.stream.stream import RankSlice, ShardStream
from tests.model.bert.test_objectives import make_task

pytestmark = pytest.mark.processes

CPU = torch.device("cpu")
NOISE = {"loss": "bins", "random_n": 0.1, "whole_number_flag": True}


@pytest.mark.parametrize("stage", ["pretrain", "spans", "finetune"])
def test_compiled_losses_and_gradients_equal_eager_ones_with_two_compilations(made, stage):
    """The graph has no breaks. The second shape causes a second compilation, which is valid for all shapes."""
    torch._dynamo.reset()
    torch.manual_seed(0)
    index = read_index(made.shards)
    config = made.config.model_copy(update={"model": made.config.model.model_copy(update={"dropout": 0.0})})
    task = make_task(config, index, stage)
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


@pytest.mark.long
@pytest.mark.parametrize(("stage", "settings"), [("pretrain", {}), ("finetune", {}), ("finetune", NOISE)])
def test_graphs_of_a_stage_are_four_for_all_rows_and_widths(made, stage, settings, monkeypatch):
    """In training and in evaluation, with and without an attention mask. Losses equal those of the plain module."""
    monkeypatch.setattr(length_cut, "PASS_TOKENS", 0)
    monkeypatch.setattr(length_cut, "ROW_STEP", 4)
    monkeypatch.setattr(length_cut, "MASK_COST", {"cpu": 1.15})
    torch._dynamo.reset()
    torch.manual_seed(0)
    sections = {"model": {"dropout": 0.0}, stage: settings}
    changes = {name: getattr(made.config, name).model_copy(update=values) for name, values in sections.items()}
    config = made.config.model_copy(update=changes)
    index = read_index(made.shards)
    task = build_task(config, index, stage)
    fuse_projections(task.model)
    plain = copy.deepcopy(task)
    task.compile_passes("aot_eager")
    shapes, is_full = set(), set()
    for rows in (40, 61):
        steps = ShardStream(made.shards, index, "finetune/train", rows, RankSlice()).epoch(0)
        for step in itertools.islice(steps, 3):
            (batch,) = step.micro_batches
            draws = task.train().draw(batch, make_generator(CPU, step.number))
            cut = task.cut(batch, CPU)
            passes = [pass_to_device(batch, one, draws, CPU) for one in cut]
            shapes |= {tuple(one.tokens.shape) for one in passes}
            is_full |= {one.is_full for one in passes}
            for is_training in (True, False):
                task.train(is_training), plain.train(is_training)
                with contextlib.nullcontext() if is_training else torch.inference_mode():
                    sums, expected = task(*passes), plain(*passes)
                if is_training:
                    sums.loss.backward()
                assert sums.loss.item() == pytest.approx(expected.loss.item(), rel=1e-5)
    assert len(shapes) >= 6
    assert is_full == {False, True}
    graphs = torch._dynamo.eval_frame._debug_get_cache_entry_list(type(task).compute_sums)
    assert len(graphs) == 4
