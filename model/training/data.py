"""The splits of the shards as one rank reads them."""

from dataclasses import dataclass
from pathlib import Path

from model.config import Stage, StageName
from model.distributed.process_group import World
from model.training.ds_config import BatchPlan
from pipeline.shards.index import Index
from pipeline.stream.sources import ShardSource
from pipeline.stream.stream import ErrorConsensus, RankSlice, ShardStream

EVALUATION_BATCH = 1024
"""Promoters per evaluation step: fixed, so that validation masks are the same on any number of ranks."""


@dataclass(frozen=True)
class RankData:
    """Access of this rank to the shards. seed: of the run; agree: how ranks share an error in the data."""

    shards: Path | ShardSource
    index: Index
    world: World
    seed: int
    agree: ErrorConsensus

    def training_stream(self, name: StageName, stage: Stage, plan: BatchPlan) -> ShardStream:
        """Open the training split of a stage, in the shuffled order of each epoch."""
        part = RankSlice(self.world.rank, self.world.ranks, plan.micro_batches)
        return ShardStream(
            self.shards, self.index, f"{name}/train", stage.global_batch, part, self.seed,
            reverse_complement=stage.reverse_complement, agree=self.agree,
        )  # fmt: skip

    def evaluation_stream(self, split: str, micro_batch: int) -> ShardStream:
        """Open a split in its stored order. micro_batch: most promoters per rank and micro-batch."""
        world = self.world
        part = RankSlice(world.rank, world.ranks, -(-EVALUATION_BATCH // (world.ranks * micro_batch)))
        return ShardStream(self.shards, self.index, split, EVALUATION_BATCH, part, shuffle=False, agree=self.agree)
