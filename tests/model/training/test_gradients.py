"""A training step follows the gradient of the mean loss of the global batch, on any number of ranks.

With plain gradient descent the change of the weights is the gradient.
"""

import json
import os
import socket

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from model.bert.build import build_task
from model.bert.frames import cut_reading_frames, select_frames
from model.bert.masking import mask_kmers
from model.bert.rng import make_generator
from model.distributed.process_group import init_group, leave_group
from model.training.ds_config import read_ds_config
from model.training.engine import start_engine
from pipeline.shards.index import read_index
from pipeline.stream.stream import RankSlice, ShardStream

pytestmark = pytest.mark.processes

CPU = torch.device("cpu")
STAGES = ("pretrain", "finetune")
ZERO = (0, 1)
MUON_ZERO = (0, 1, 2)
MUON = {"optimizer": "muon", "warm_up": 0, "muon_learning_rate": 0.05, "weight_decay": 0.5, "gradient_clipping": 0.0}
MICRO_BATCH = 8
"""A quarter of the global batch."""


def first_step(made, stage, part):
    config = made.config.stage(stage)
    stream = ShardStream(made.shards, read_index(made.shards), f"{stage}/train", config.global_batch, part, seed=0)
    return next(stream.epoch(0))


def fresh_task(made, stage):
    config = made.config.model_copy(update={"model": made.config.model.model_copy(update={"dropout": 0.0})})
    torch.manual_seed(1)
    return build_task(config, read_index(made.shards), stage)


def run_rank(rank, ranks, port, made, folder, changes):
    """Take one step of each stage and optimizer. Without Muon it is gradient descent with learning rate 1."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(ranks), LOCAL_WORLD_SIZE=str(ranks))
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    world = init_group()
    for stage in STAGES:
        for zero in ZERO:
            task = fresh_task(made, stage)
            descent = torch.optim.SGD(task.parameters(), lr=1.0)
            change = take_step(made, folder, world, task, stage, zero, made.config.stage(stage), descent)
            changes[f"{stage} {zero} {ranks}"] = change
    for zero in MUON_ZERO:
        stage = made.config.finetune.model_copy(update=MUON)
        changes[f"muon {zero} {ranks}"] = take_step(
            made, folder, world, fresh_task(made, "finetune"), "finetune", zero, stage
        )
    leave_group()


def take_step(made, folder, world, task, name, zero, stage, optimizer=None):
    """Take one step. Returns the weights before it minus those after it, by name."""
    file = folder / f"ds-{world.rank}.json"
    values = {"zero_optimization": {"stage": zero}, "zero_allow_untested_optimizer": True}
    file.write_text(json.dumps({"train_micro_batch_size_per_gpu": MICRO_BATCH, **values}))
    before = {key: weights.detach().clone() for key, weights in task.model.named_parameters()}
    settings = read_ds_config(file, cuda=False)
    engine = start_engine(name, stage, task, settings, world, made.config.run.seed, optimizer=optimizer)
    assert engine.plan.micro_batches * world.ranks * MICRO_BATCH == stage.global_batch
    engine.deepspeed.train()
    part = RankSlice(world.rank, world.ranks, engine.plan.micro_batches)
    engine.train_step(first_step(made, name, part), torch.zeros(3, dtype=torch.float64))
    after = {key: weights.detach().clone() for key, weights in task.model.named_parameters()}
    engine.deepspeed.destroy()
    return {key: (before[key] - after[key]).numpy() for key in before}


@pytest.fixture(scope="module")
def changes(made, tmp_path_factory):
    """Changes of the weights in one step, by "stage ZeRO ranks" or "muon ZeRO ranks", then by name."""
    folder = tmp_path_factory.mktemp("gradients")
    context = torch.multiprocessing.get_context("spawn")
    with context.Manager() as manager:
        results = manager.dict()
        for ranks in (1, 2):
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = probe.getsockname()[1]
            torch.multiprocessing.spawn(run_rank, (ranks, port, made, folder, results), nprocs=ranks)
        return dict(results)


def plain_loss(made, stage, task):
    """Compute the mean loss of the whole global batch with stock transformers and torch."""
    batch = first_step(made, stage, RankSlice()).micro_batches[0]
    assert len(batch.id) == made.config.stage(stage).global_batch
    tokens, lengths = torch.from_numpy(batch.tokens), torch.from_numpy(batch.lengths)
    frames = cut_reading_frames(tokens, lengths, 3)
    if stage == "finetune":
        ids, attention = frames.input_ids.flatten(0, 1), frames.attention_mask.flatten(0, 1)
        outputs = task.model(input_ids=ids, attention_mask=attention).logits.view(len(tokens), 3).mean(1)
        labels = (torch.from_numpy(batch.expression) - task.label_mean) / task.label_sd
        return F.mse_loss(outputs, labels)
    draws = task.draw(batch, make_generator(CPU, made.config.run.seed, stage, 0, 0))
    wide = torch.from_numpy(batch.tokens[:, : task.choose_width(batch, CPU)])
    one = select_frames(cut_reading_frames(wide, lengths, 3), draws.frame)
    share = made.config.pretrain.mask_share
    read, labels = mask_kmers(one.input_ids, one.kmers, draws.slice_rows(0, len(wide)), share)
    logits = task.model(input_ids=read, attention_mask=one.attention_mask).logits
    summed = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
    expected = share * ((lengths - draws.frame) // 3).sum()  # expected number of masked k-mers
    return summed / expected


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("zero", ZERO)
@pytest.mark.parametrize("stage", STAGES)
def test_gradient_equals_that_of_the_mean_loss(made, changes, stage, zero, ranks):
    """The gradient is the change of the weights, which float32 holds to 1e-7."""
    task = fresh_task(made, stage)
    task.model.train()
    plain_loss(made, stage, task).backward()
    found = changes[f"{stage} {zero} {ranks}"]
    trained = {name: weights.grad for name, weights in task.model.named_parameters() if weights.grad is not None}
    assert max(gradient.abs().max() for gradient in trained.values()) > 1e-2
    for name, gradient in trained.items():
        assert found[name] == pytest.approx(gradient.numpy(), rel=1e-4, abs=5e-7), name


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("zero", MUON_ZERO)
def test_muon_takes_the_same_step_at_every_zero_stage_and_number_of_ranks(made, changes, zero, ranks):
    """ZeRO 1 and 2 divide matrices between the ranks. Another decay and rate than Adam's, and no clipping."""
    expected, found = changes["muon 0 1"], changes[f"muon {zero} {ranks}"]
    matrices = [name for name, change in found.items() if ".layer." in name and change.ndim == 2]
    assert len(matrices) == 6 * made.config.model.layers
    for name, change in found.items():
        difference, size = np.linalg.norm(change - expected[name]), np.linalg.norm(expected[name])
        assert difference < 1e-2 * size, name
    assert min(np.linalg.norm(found[name], 2) for name in matrices) > 0.5 * MUON["muon_learning_rate"]
