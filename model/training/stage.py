"""Run one stage of a training run, from its last checkpoint to its end or to a stop request."""

from collections.abc import Callable
from pathlib import Path

import torch

from model.artifacts.manifest import Layout, StageProgress
from model.bert.build import build_task
from model.bert.flops import stage_cost
from model.bert.rng import seed_of
from model.config import StageName
from model.distributed.process_group import run_on_rank0
from model.distributed.stop_signals import StopRequest
from model.runs.metric_log import Tracker
from model.training.checkpointing.checkpoints import HUGGING_FACE, Checkpoint, Checkpoints
from model.training.checkpointing.hf_export import Exporter, frozen_weights
from model.training.checkpointing.store import StageStore
from model.training.engine import StageEngine, start_engine
from model.training.loop import StageLoop
from model.training.prepare import TrainingRun
from model.training.throughput import Meter
from pipeline.runtime.progress import emit, progress


def run_stage(
    run: TrainingRun, name: StageName, tracker: Tracker, stop: StopRequest, matmul_rate: float
) -> StageProgress:
    """Run a stage, unless it has ended already. All ranks call this.

    matmul_rate: operations per second of all devices in plain matrix products. The result has not `ended` where a stop
    was requested.
    """
    config, world, best = run.config, run.world, run.best_model(name)

    def emit_of_stage(line: str) -> None:
        emit(f"{name}: {line}")

    ended = run_on_rank0(world, best.ended)
    if ended is not None:
        if world.is_rank0:
            emit_of_stage(f"already completed at step {ended.step:,}; the best model is in {best.folder}")
        return ended
    torch.manual_seed(seed_of(config.run.seed, name, "weights"))
    layout = Layout(world.ranks, run.settings.zero_stage, run.settings.precision)
    checkpoints = Checkpoints(best.checkpoints, best.owner, layout, config.run.keep_checkpoints, world)
    found = checkpoints.find(emit_of_stage)
    engine, exporter = _start(run, name, found, emit_of_stage)
    store = StageStore(engine, checkpoints, best, exporter, config.run.checkpoint_minutes)
    state = store.load(found)
    engine.deepspeed.train()  # from_pretrained leaves a model in evaluation mode, without dropout
    tracker.begin(name, state.step)
    stream = run.data.training_stream(name, config.stage(name), engine.plan)
    meter = Meter(engine, stream, tracker, stage_cost(config, run.index, name), matmul_rate)
    with progress(name, "steps", quiet=not world.is_rank0) as show:
        StageLoop(engine, config.stage(name), run.data, meter, store, stop, show).run(state)
    return state.progress


def _start(
    run: TrainingRun, name: StageName, found: Checkpoint | None, emit: Callable[[str], None]
) -> tuple[StageEngine, Exporter]:
    """Build the model and start its engine; the exporter takes the weights that are not trained before that."""
    config, world = run.config, run.world
    task = build_task(config, run.index, name, _start_weights(run, name, found, emit))
    exporter = Exporter(config, run.index, frozen_weights(task.model))
    universal = found is not None and found.universal
    engine = start_engine(name, config.stage(name), task, run.settings, world, config.run.seed, universal)
    if config.model.compile:
        if world.is_rank0:
            emit("compiling the training step (model.compile=true); the first steps take minutes on a CPU")
        engine.deepspeed.compile()
    return engine, exporter


def _start_weights(
    run: TrainingRun, name: StageName, found: Checkpoint | None, emit: Callable[[str], None]
) -> Path | None:
    """Choose the directory of the weights that a stage starts from; None for fresh ones."""
    if name == "pretrain":
        return None
    if run.config.finetune.wants_pretraining:
        own = run.best_model("pretrain")
        run_on_rank0(run.world, lambda: own.require(emit))
        return own.folder
    if found is None:
        return run.config.finetune.other_pretraining
    # A run that resumes takes its own copy: the other run's directory may have gone or changed. Frozen weights must
    # stay those that the rest was trained with.
    return run.best_model(name).checkpoints / found.tag / HUGGING_FACE
