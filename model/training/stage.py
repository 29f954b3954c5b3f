"""Train one stage of a run, from its last checkpoint to its end or to a stop request."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from model.artifacts.manifest import Layout, StageProgress
from model.bert.build import build_task
from model.bert.flops import make_stage_cost
from model.bert.kmer_statistics import fit_embedding
from model.bert.rng import derive_seed
from model.config import StageName
from model.distributed.process_group import run_on_rank0
from model.distributed.stop_signals import StopRequest
from model.runs.metric_log import Tracker
from model.training.checkpointing.best_model import HUGGING_FACE
from model.training.checkpointing.checkpoints import Checkpoints, find_checkpoint
from model.training.checkpointing.hf_export import export_stage
from model.training.checkpointing.reshard import UNIVERSAL
from model.training.engine import start_engine
from model.training.loop import StageLoop
from model.training.prepare import EVALUATION_BATCH, TrainingRun
from model.training.throughput import Meter
from pipeline.dataset.database import training_insert_lengths
from pipeline.runtime.progress import emit, progress


def run_stage(
    run: TrainingRun, name: StageName, tracker: Tracker, stop: StopRequest, matmul_rate: float
) -> StageProgress:
    """Train a stage, unless it has ended already. All ranks call this.

    matmul_rate: operations per second of all devices in matrix products. In the result, `ended` is false after a stop
    request. Raises UserError if the training diverges, the disk is full, or no checkpoint is intact.
    """
    config, index, world, best = run.config, run.index, run.world, run.best_model(name)
    settings = config.stage(name)

    def report(line: str) -> None:
        if world.is_rank0:
            emit(f"{name}: {line}")

    if ended := run_on_rank0(world, best.read_ended_progress):
        report(f"already completed at step {ended.step:,}; the best model is in {best.folder}")
        return ended
    torch.manual_seed(derive_seed(config.run.seed, name, "weights"))
    layout = Layout(world.ranks, run.settings.zero_stage, run.settings.precision)
    last = run_on_rank0(world, lambda: find_checkpoint(best, layout, report))
    start = _choose_initial_weights(run, name, last, report)
    task = build_task(config, index, name, start)
    if start is None:
        size = EVALUATION_BATCH[world.device.type]
        fit_embedding(task, run.open_evaluation_stream(f"{name}/train", size).epoch(0), world.device)
    if name == "finetune":
        bert: Any = task.model.config
        bert.promoter_bert["insert_lengths"] = run_on_rank0(world, lambda: _read_insert_lengths(run))
    universal = last is not None and last.parent.name == UNIVERSAL
    engine = start_engine(name, settings, task, run.settings, world, config.run.seed, universal)
    if config.model.compile:
        report("compiling the training step (model.compile=true); the first steps take minutes on a CPU")
        engine.compile()
    checkpoints = Checkpoints(engine, best, layout, config.run, partial(export_stage, engine, config, index))
    state = checkpoints.load(last)
    engine.deepspeed.train()  # from_pretrained leaves a model in evaluation mode, without dropout
    tracker.begin(name, state.step)
    stream = run.open_training_stream(name, settings, engine.plan)
    if state.adopt_order(stream.lanes, stream.rows):
        report(f"the order of promoters has changed since the checkpoint; epoch {state.epoch} starts again")
    meter = Meter(engine, stream, tracker, make_stage_cost(config, index, name), matmul_rate, config.assay.name)
    with progress(name, "steps", quiet=not world.is_rank0) as show:
        StageLoop(run, settings, meter, checkpoints, stop, show).run(state)
    return state.progress


def _read_insert_lengths(run: TrainingRun) -> list[int]:
    """Read the range of the insert lengths that fine-tuning trains on; the exported model records it."""
    return list(training_insert_lengths(run.config.dataset.path))


def _choose_initial_weights(
    run: TrainingRun, name: StageName, last: Path | None, report: Callable[[str], None]
) -> Path | None:
    """Choose the directory of the weights that a stage starts from. Returns None for random weights."""
    if name == "pretrain":
        return None
    if run.config.finetune.uses_own_pretraining:
        own = run.best_model("pretrain")
        run_on_rank0(run.world, lambda: own.ensure_intact(report))
        return own.folder
    if last is None:
        return run.config.finetune.pretrained_folder
    # A resumed run uses its own copy, as the other run's directory may have changed and frozen weights must not.
    return run.best_model(name).checkpoints / last.name / HUGGING_FACE
