"""Prepare a training run: find and check the shards, open the run directory, compare the hosts."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from model.bert.bins import check_noise_settings
from model.bert.build import check_pretrained, make_bert_config
from model.config import STAGES, Config, Stage, StageName, Stages
from model.distributed.consensus import agree_on_index, make_error_consensus, make_fact_exchange
from model.distributed.process_group import World, all_gather, run_on_rank0
from model.runs.directory import describe_held_out_difference, has_weights, make_owner_keys, open_run
from model.training.checkpointing.best_model import BestModel
from model.training.ds_config import BatchPlan, DeepSpeedSettings
from model.training.optimization.optimizer import check_optimizer
from pipeline.dataset.built_settings import as_built
from pipeline.dataset.database import dataset_info, open_dataset
from pipeline.errors import UserError
from pipeline.runtime.progress import emit
from pipeline.shards.index import Index
from pipeline.shards.location import find_complete_index, find_index
from pipeline.shards.staleness import adopt_compression, check_fresh
from pipeline.shards.verify import check_splits
from pipeline.stream.sources import LocalShards, ShardSource, choose_source
from pipeline.stream.stream import ErrorConsensus, FactExchange, RankSlice, ShardStream

EVALUATION_BATCH = {"cpu": 1024, "cuda": 16_384}
"""Promoters per evaluation step; fixed, so that validation masks are the same on any number of ranks.

On GPUs, whose random numbers differ from a CPU's anyway, large steps keep 16 ranks busy.
"""
EVALUATION_MICRO_BATCH = {"cpu": 1, "cuda": 1024}
"""Fewest promoters per rank and forward pass: without a backward pass, activations are not kept."""


@dataclass(frozen=True)
class RankData:
    """Access of this rank to the shards.

    seed: random seed of the run; agree: collective function: if one rank has a data error, all ranks learn of it;
    exchange: one that also shares the lengths of promoters, so that a rank need not read those of other ranks.
    """

    shards: Path | ShardSource
    index: Index
    world: World
    seed: int
    agree: ErrorConsensus
    exchange: FactExchange | None = field(default=None, kw_only=True)

    def open_training_stream(self, name: StageName, stage: Stage, plan: BatchPlan) -> ShardStream:
        """Open the training split of a stage, with another shuffle in each epoch."""
        part = RankSlice(self.world.rank, self.world.ranks, plan.micro_batches)
        return ShardStream(
            self.shards, self.index, f"{name}/train", stage.global_batch, part, self.seed,
            reverse_complement=stage.reverse_complement, agree=self.agree, exchange=self.exchange,
        )  # fmt: skip

    def open_evaluation_stream(self, split: str, micro_batch: int) -> ShardStream:
        """Open a split in stored order. micro_batch: promoters per micro-batch in training."""
        ranks, device = self.world.ranks, self.world.device.type
        size, most = EVALUATION_BATCH[device], max(micro_batch, EVALUATION_MICRO_BATCH[device])
        part = RankSlice(self.world.rank, ranks, -(-size // (ranks * most)))
        return ShardStream(
            self.shards, self.index, split, size, part, shuffle=False, agree=self.agree, exchange=self.exchange
        )


@dataclass(frozen=True)
class TrainingRun(RankData):
    """A run that is ready to train on this rank. config: includes the settings of the built dataset and shards."""

    config: Config
    settings: DeepSpeedSettings

    def best_model(self, stage: StageName) -> BestModel:
        """Return the best model of a stage: runs/NAME/pretrained or runs/NAME/model."""
        folder = self.config.run.directory
        name = "pretrained" if stage == "pretrain" else "model"
        owner = make_owner_keys(self.config, self.index)
        return BestModel(stage, folder / name, folder / "checkpoints" / stage, owner)


@contextmanager
def prepare(
    config: Config, settings: DeepSpeedSettings, world: World, stages: Stages = "both"
) -> Iterator[TrainingRun]:
    """Prepare a run; its directory stays locked until the block ends. All ranks call this.

    Raises UserError on every rank if shards, dataset, settings or hosts do not fit together.
    """
    if stages == "pretrain" and config.finetune.pretrained_folder is not None:
        raise UserError(
            "--stage pretrain: pretraining would have no effect, as fine-tuning starts from "
            f"finetune.pretrained={config.finetune.pretrained}; fix: omit one of the two"
        )
    for name in config.stages(stages):
        check_optimizer(name, config.stage(name), settings)
    rank0_index: Index | None = None
    with ExitStack() as lock:

        def open_directory() -> Config:
            nonlocal rank0_index
            rank0_index = find_index(config)
            choose_source(config, rank0_index)  # raises before the run directory is made
            built = _check_data(config, rank0_index)
            lock.enter_context(open_run(built, rank0_index, settings.values))
            return built

        built = run_on_rank0(world, open_directory)
        index = agree_on_index(config, settings.values, rank0_index or find_complete_index(config))
        hosts = len(set(all_gather(socket.gethostname())))
        shards, agree = choose_source(config, index, hosts), make_error_consensus(world.rank)
        exchange = make_fact_exchange(world.rank)
        yield TrainingRun(shards, index, world, config.run.seed, agree, built, settings, exchange=exchange)


def check_held_out(run: TrainingRun, stages: Stages) -> None:
    """Check the bytes of the held-out shards in a local folder. Raises UserError before training, not at its end."""
    if isinstance(run.shards, LocalShards):
        names = (f"{stage}/{part}" for stage in run.config.stages(stages) for part in ("valid", "test"))
        splits = [split for split in names if split in run.index.splits]
        check_splits(run.shards.folder, run.index, splits, run.shards.command)


def _check_data(config: Config, index: Index) -> Config:
    """Check dataset, shards and the model to start from. Returns the config with the settings of dataset and shards."""
    with open_dataset(config.dataset.path, build_command=config.build_command) as connection:
        info = dataset_info(connection)
    built = adopt_compression(as_built(config, info), index)
    check_fresh(index, built, info)
    check_noise_settings(built, index)
    stages = STAGES if built.finetune.uses_own_pretraining else ("finetune",)
    splits = [f"{stage}/{part}" for stage in stages for part in ("train", "valid")]
    empty = [split for split in splits if split not in index.splits]
    if empty:
        raise UserError(
            f"{config.dataset.path}: the dataset has no rows in {', '.join(empty)}: no labels, or a size of 0; fix: "
            "build it from rows with labels, with dataset.pretrain_valid, dataset.finetune_valid and "
            "dataset.finetune_train above 0"
        )
    other = built.finetune.pretrained_folder
    if other is not None and not has_weights(built):
        check_pretrained(other, make_bert_config(built, index), built.model.kmer_embedding == "composed")
        if note := describe_held_out_difference(other, built):
            emit(note)
    return built
