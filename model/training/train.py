"""Train a run, from configuration to scores.

Example:
    from promoter_bert import load_config, train
    summary = train(load_config("configs/demo.yaml"))
"""

import os
from collections.abc import Callable
from pathlib import Path

import torch

from model.artifacts.manifest import StageProgress
from model.bert.flops import measure_matmul_rate, nominal_rate
from model.bert.rng import deterministic_kernels
from model.config import Config, StageName, Stages
from model.distributed.process_group import World, join_group, run_on_rank0, sum_over_ranks
from model.distributed.stop_signals import catch_stop_signals
from model.muon.compilation import torch_compile
from model.runs.metric_log import Tracker
from model.runs.status import STATUS, RunStatus, State
from model.training.ds_config import DEFAULT_DS_CONFIG, DeepSpeedSettings, read_ds_config
from model.training.messages import describe_rate, describe_run, describe_summary, warn_long_training
from model.training.prepare import TrainingRun, check_held_out, prepare
from model.training.results import Summary, compute_results, read_finished_results
from model.training.stage import run_stage
from model.watchdog.client import Watchdog

Emit = Callable[[str], None]


def _be_silent(_line: str) -> None:
    """Discard a line, on ranks other than 0."""


def train(
    config: Config,
    stages: Stages = "both",
    ds_config: Path | None = None,
    watchdog: Watchdog | None = None,
    emit: Emit = lambda _: None,
) -> Summary:
    """Pretrain and fine-tune, or resume a run. Returns the summary, as in summary.json.

    Without a launcher this process trains alone. With a launcher all ranks call this.

    stages: "pretrain", "finetune" or "both". ds_config: file of DeepSpeed's settings, None for ds_config.json.
    watchdog: of this rank. emit: receives descriptions of run, matmul rate and results on rank 0.
    Raises UserError if data, settings or hosts are invalid, the disk is full, or the training diverges.
    """
    settings = read_ds_config(ds_config or DEFAULT_DS_CONFIG, torch.cuda.is_available())
    environment = dict(os.environ)
    try:
        with join_group(watchdog) as world:
            return train_on_rank(config, settings, world, stages, emit)
    finally:  # without a launcher, this process has set the variables of one
        os.environ.clear()
        os.environ.update(environment)


def train_on_rank(
    config: Config, settings: DeepSpeedSettings, world: World, stages: Stages = "both", emit: Emit = lambda _: None
) -> Summary:
    """Train as one rank of a process group. All ranks call this. Raises the errors of train."""
    path = config.run.directory / STATUS if world.is_rank0 else None
    exact, compiler = deterministic_kernels(config.run.deterministic), torch_compile(config.model.compile)
    with exact, compiler, prepare(config, settings, world, stages) as run, RunStatus(path) as status:
        finished = read_finished_results(run, stages)
        if world.is_rank0:
            emit(f"note       {finished['note']}" if finished else describe_run(run, stages))
        summary = finished or _run_stages(run, stages, emit if world.is_rank0 else _be_silent)
        if world.is_rank0:
            emit(describe_summary(summary))
        status.state = State.INTERRUPTED if "stopped" in summary else State.FINISHED
        return summary


def _run_stages(run: TrainingRun, stages: Stages, emit: Emit) -> Summary:
    """Train the stages that have not ended, then compute the results. A stop request ends either."""
    config, world = run.config, run.world
    run_on_rank0(world, lambda: check_held_out(run, stages))
    if world.device.type == "cuda" and config.model.tf32:
        torch.set_float32_matmul_precision("high")
    rate = measure_matmul_rate(world.device, run.settings.precision)
    emit(describe_rate(rate, nominal_rate(world.device, run.settings.precision, config.model.tf32)))
    (total_rate,) = sum_over_ranks(torch.tensor(rate, device=world.device))
    if warning := warn_long_training(run, stages, total_rate):
        emit(warning)
    progress: dict[StageName, StageProgress] = {}
    with catch_stop_signals(world) as stop, Tracker(config.run.directory, world.is_rank0) as tracker:
        for name in config.stages(stages):
            progress[name] = run_stage(run, name, tracker, stop, total_rate)
            if not progress[name].ended:
                return {"stopped": f"{name} after step {progress[name].step:,}; run the same command to resume"}
        return compute_results(run, stages, progress, stop)
