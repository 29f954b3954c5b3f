"""Stream of the batches of one rank: each promoter once per epoch, the same global batches on any number of ranks.

1. The order of the epoch (shuffle.py) consists of lanes, from each of which a global batch takes its next promoters.
2. A thread reads the windows of the lanes of this rank (lanes.py, reader.py), and collates blocks (batching.py).
3. Before each block, the ranks share their errors, and the lengths of their promoters.
4. The batches of a step are slices of the arrays of a block: no work per promoter, and little per batch.

All ranks make the same number of steps. The state is a position: epoch, and promoters consumed. A resume starts at
the windows of its position.

Memory of a rank: one window per lane that it reads, of 16 records divided by the number of lanes, but at least one
record (1.7 MB at k = 3 and flank 150), of which it keeps its own promoters; and four blocks of 7 MB.
"""

import contextlib
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.lib.stride_tricks import as_strided
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from pipeline.errors import UserError
from pipeline.io.remote import is_remote
from pipeline.runtime.prefetch import prefetch
from pipeline.shards.index import Index
from pipeline.stream.batching import Batch, Block, RankSlice, Step, assign_rows, collate
from pipeline.stream.lanes import LaneReader, list_upcoming, slice_lanes
from pipeline.stream.reader import RecordReader
from pipeline.stream.shuffle import EpochOrder, count_lanes, partition
from pipeline.stream.sources import LocalShards, ShardSource
from pipeline.tokens.kmers import Numbers
from pipeline.tokens.reverse_complement import draw_strands

__all__ = ["Batch", "ErrorConsensus", "RankSlice", "ShardStream", "Step", "StreamState"]

PREFETCHED_RECORDS = 512
"""Records of this rank from the next one on that are prefetched from a URL, or whose shards are."""
PREFETCHED_BLOCKS = 2
"""Complete blocks that wait to be consumed."""
MAX_EPOCH = 2**31
"""Largest valid epoch of a state."""
BLOCK_PROMOTERS = 16_384
"""Promoters per block and rank. Rounded to a whole number of steps, at least one."""

ErrorConsensus = Callable[[str | None], str | None]
"""The error of this rank, or None -> the error of any rank, or None. All ranks call it at the same points."""

FactExchange = Callable[[str | None, Numbers | None, Numbers], tuple[str | None, Numbers]]
"""The error of this rank, or None; int64 facts of its promoters, or None after an error; and the number of facts of
each rank -> the error of any rank, or None; and the facts of all ranks, joined, or a single one if all are equal. All
ranks call it at the same points.
"""


@dataclass(frozen=True)
class StreamState:
    """Position of a stream. It does not depend on the number of ranks, micro-batches and threads.

    shard_key: of the index; split: such as finetune/train; seed, reverse_complement: settings that determine the
    batches; epoch: from 0; consumed: promoters of the epoch that were returned, over all ranks; global_batch: on which
    the order depends if there are several lanes; 0 in states that were written before there were lanes.
    """

    __pydantic_config__ = ConfigDict(strict=True, extra="forbid")

    shard_key: str
    split: str
    seed: int
    reverse_complement: bool
    epoch: Annotated[int, Field(ge=0, le=MAX_EPOCH)] = 0
    consumed: Annotated[int, Field(ge=0)] = 0
    global_batch: Annotated[int, Field(ge=0)] = 0

    def to_json(self) -> str:
        """Serialize the state to one line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "StreamState":
        """Parse the result of to_json. Raises UserError if the text is invalid."""
        try:
            return TypeAdapter(cls).validate_json(text)
        except ValidationError as error:
            problem = "; ".join(f"{'.'.join(map(str, e['loc']))} {e['msg']}" for e in error.errors())
            raise UserError(f"not the state of a stream: {problem}; expected the result of to_json()") from None

    def check(self, current: "StreamState") -> None:
        """Raise UserError if this state does not fit the stream `current`: promoters would repeat or be lost."""
        for name in ("shard_key", "split", "seed", "reverse_complement"):
            saved, value = getattr(self, name), getattr(current, name)
            if saved != value:
                raise UserError(
                    f"the saved state has {name} {saved}, but this stream has {value}; "
                    "fix: resume with the same shards and settings, or start a new run"
                )


@dataclass(eq=False, repr=False)
class ShardStream:
    """Stream of the batches of one split for one rank.

    shards: a folder, or another source; global_batch: promoters per step, over all ranks; rank_slice: the slice of this
    rank, by default the whole batch; reverse_complement: read half of the promoters, drawn again per epoch, from the
    other strand; agree: collective function that shares the first error of any rank, called before each block of steps;
    exchange: one that also shares the lengths of the promoters, used instead if there are several lanes. Without it,
    each rank reads the lanes of all ranks to know these lengths.

    Raises UserError for an unknown split, and for a URL: choose_source makes a source of it.
    """

    shards: Path | str | ShardSource
    index: Index
    split: str
    global_batch: int
    rank_slice: RankSlice = field(default_factory=RankSlice)
    seed: int = 0
    shuffle: bool = True
    reverse_complement: bool = False
    agree: ErrorConsensus = lambda problem: problem
    exchange: FactExchange | None = None

    def __post_init__(self) -> None:
        if self.split not in self.index.splits:
            raise UserError(f"{self.shards}: no split {self.split}; expected one that has rows in the dataset")
        if isinstance(self.shards, str) and is_remote(self.shards):
            raise UserError(
                f"{self.shards}: a URL; expected a folder or a source with a cache; fix: choose_source(config, index)"
            )
        source = LocalShards(Path(self.shards)) if isinstance(self.shards, Path | str) else self.shards
        self._shards = self.index.splits[self.split]
        self._reader = RecordReader(source, self._shards, self.index.k, self.index.label_count)
        self.rows = self.index.rows(self.split)
        self.lanes = count_lanes(self.rows, self.global_batch, self.shuffle)
        """Lanes of each epoch. With a single one, the order does not depend on the global batch."""
        self._exchange = self.exchange if self.lanes > 1 and self.rank_slice.ranks > 1 else None

    def __len__(self) -> int:
        """Count the steps per epoch, the same on every rank."""
        return math.ceil(self.rows / self.global_batch)

    def state(self, epoch: int = 0, consumed: int = 0) -> StreamState:
        """Make the state of the stream after `consumed` promoters of an epoch."""
        key, size = self.index.key, self.global_batch
        return StreamState(key, self.split, self.seed, self.reverse_complement, epoch, consumed, size)

    def resume(self, state: StreamState) -> Iterator[Step]:
        """Yield the remaining steps of the epoch of a state.

        Raises UserError for a state of another stream, or with a position outside of the split, or within an epoch of
        another global batch.
        """
        state.check(self.state())
        saved_lanes = count_lanes(self.rows, state.global_batch, self.shuffle) if state.global_batch else 1
        depends = max(self.lanes, saved_lanes) > 1  # either order depends on its global batch
        if depends and state.global_batch != self.global_batch and 0 < state.consumed < self.rows:
            saved = f"global batch {state.global_batch}" if state.global_batch else "an order without lanes"
            raise UserError(
                f"the saved state is within an epoch of {saved}, but this stream has global batch {self.global_batch}; "
                "fix: resume with the same global batch, or from the start of the epoch"
            )
        return self.epoch(state.epoch, state.consumed)

    def epoch(self, epoch: int, consumed: int = 0) -> Iterator[Step]:
        """Yield the steps of an epoch after its first `consumed` promoters.

        Raises UserError for a position outside of the split, or within a global batch of several lanes. The iterator
        raises UserError for a missing or corrupt shard, naming file and record.
        """
        for name, value, most in (("epoch", epoch, MAX_EPOCH), ("consumed", consumed, self.rows)):
            if type(value) is not int or not 0 <= value <= most:
                raise UserError(
                    f"{self.shards}: {self.split}: {name}: expected an integer from 0 to {most:,}, got {value!a}; "
                    "fix: resume with the same shards, or start a new run"
                )
        if self.lanes > 1 and consumed % self.global_batch and consumed != self.rows:
            raise UserError(
                f"{self.shards}: {self.split}: consumed: expected a multiple of the global batch {self.global_batch}, "
                f"got {consumed}; fix: resume with the same global batch, or from the start of the epoch"
            )
        return self._iterate_steps(epoch, consumed)

    def _iterate_steps(self, epoch: int, consumed: int) -> Iterator[Step]:
        blocks = prefetch(self._collate_blocks(epoch, consumed), PREFETCHED_BLOCKS, f"read {self.split}")
        with contextlib.closing(blocks):
            for steps, global_rows in self._plan_blocks(consumed):
                for batches in self._next_block(blocks, steps, global_rows):
                    number = consumed // self.global_batch
                    consumed += global_rows
                    yield Step(epoch, number, consumed, batches)

    def _plan_blocks(self, consumed: int) -> Iterator[tuple[int, int]]:
        """List the blocks of an epoch after its first promoters: steps, and promoters per step over all ranks."""
        size = self.global_batch
        most = max(BLOCK_PROMOTERS * self.rank_slice.ranks // size, 1)
        whole, rest = divmod(self.rows - consumed, size)
        for done in range(0, whole, most):
            yield min(most, whole - done), size
        if rest:
            yield 1, rest

    def _next_block(
        self, blocks: Iterator[tuple[Block, Numbers | None]], steps: int, global_rows: int
    ) -> list[list[Batch]]:
        """Take the next block. Raises UserError on every rank if any rank has an error."""
        block, facts, problem = None, None, None
        try:
            block, facts = next(blocks)
        except Exception as error:
            own_error, problem = error, str(error) or type(error).__name__
        if self._exchange is None:
            any_problem = self.agree(problem)
        else:
            counts = steps * np.diff(partition(global_rows, self.rank_slice.ranks))
            any_problem, joined = self._exchange(problem, block.own_facts() if block else None, counts)
            facts = _arrange(joined, counts, steps, global_rows)
        if block is None:
            raise own_error
        if any_problem is not None:
            raise UserError(any_problem)
        return block.slice_steps(block.own_facts().reshape(steps, -1) if facts is None else facts)

    def _collate_blocks(self, epoch: int, consumed: int) -> Iterator[tuple[Block, Numbers | None]]:
        """Collate the blocks of an epoch. Yields each with the facts of its global batches, if this rank reads them."""
        order = EpochOrder(
            [shard.rows for shard in self._shards],
            lambda shard: [record.rows for record in self._shards[shard].records],
            self.seed, epoch, self.global_batch, self.lanes, self.shuffle,
        )  # fmt: skip
        rest = (self.rows - consumed) % self.global_batch
        assignments = {rows: assign_rows(self.rank_slice, rows) for rows in (self.global_batch, rest) if rows}
        tail = assignments[rest].range if rest else (0, 0)
        reads_all = self._exchange is None and self.rank_slice.ranks > 1
        slices = slice_lanes(order, consumed, assignments[self.global_batch].range, tail, reads_all)
        strands = partial(draw_strands, self.seed, epoch) if self.reverse_complement else None
        lanes = [LaneReader(part, self._reader) for part in slices]
        upcoming, done = list_upcoming(slices), 0
        try:
            for steps, global_rows in self._plan_blocks(consumed):
                next_piece = np.searchsorted(upcoming[:, 0], done)
                self._reader.prefetch(upcoming[next_piece : next_piece + PREFETCHED_RECORDS, 1:].tolist())
                is_tail = global_rows == rest
                own = [rows for lane in lanes if (rows := lane.take(steps, is_tail))]
                block = collate(own, assignments[global_rows], global_rows, steps, self.index.k, strands)
                facts = [lane.take_facts(steps, is_tail).reshape(steps, -1) for lane in lanes if reads_all]
                yield block, np.concatenate(facts, axis=1) if reads_all else None
                done += steps
        finally:
            self._reader.prefetch([])


def _arrange(facts: Numbers, counts: Numbers, steps: int, global_rows: int) -> Numbers:
    """Arrange the facts of all ranks by step: (steps, global_rows). A single one is that of all promoters."""
    if len(facts) == 1:
        return as_strided(np.full(global_rows, facts[0]), (steps, global_rows), (0, facts.itemsize))
    return np.concatenate([part.reshape(steps, -1) for part in np.split(facts, np.cumsum(counts)[:-1])], axis=1)
