"""Stream of one rank's batches: each promoter exactly once per epoch, the same global batches on any number of ranks.

1. The order of the epoch (shuffle.py) names windows of records.
2. One thread reads the windows and checks the CRC-32 of every record (reader.py).
3. Another thread collates this rank's promoters, in order, block by block (batching.py).
4. The batches of a step are slices of a block's arrays: no work per promoter, and little per batch.

All ranks make the same number of steps. The state is a position: (epoch, promoters consumed). Resuming reads the window
that holds it, and none before.

Memory of a rank: at most five windows (one being read, one beside it, one waiting, two being cut; 26 MB each at k = 3
and flank 150) and four blocks (7 MB each, divided by the ranks; as wide as their longest promoter).
"""

import contextlib
import json
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from pipeline.errors import UserError
from pipeline.runtime.prefetch import prefetch
from pipeline.shards.index import Index
from pipeline.stream.batching import Batch, RankSlice, Step, assign_rows, collate, split_windows
from pipeline.stream.reader import RecordReader, Window
from pipeline.stream.shuffle import WINDOW_RECORDS, EpochOrder, epoch_order
from pipeline.stream.sources import LocalShards, ShardSource
from pipeline.tokens.reverse_complement import draw_strands

__all__ = ["Batch", "ErrorConsensus", "RankSlice", "ShardStream", "Step", "StreamState"]

WINDOWS_AHEAD = 1
"""Windows read before they are needed, beside the one that is being read."""
READERS = 2
"""Threads that read and check records of a window side by side."""
PREFETCHED_RECORDS = 32 * WINDOW_RECORDS
"""Records from a window on that are announced to the source, so that it can fetch their shards."""
BLOCKS_AHEAD = 2
"""Blocks collated before they are needed."""
MAX_EPOCH = 2**31
"""Largest epoch of a state. A larger one is taken for a corrupt state."""
BLOCK_PROMOTERS = 16_384
"""Promoters collated at once, over all ranks; a whole number of steps, at least one."""

ErrorConsensus = Callable[[str | None], str | None]
"""This rank's error, or None -> the error of any rank, or None. Called by all ranks at the same places."""


@dataclass(frozen=True)
class StreamState:
    """Position of a stream, the same on any number of ranks, micro-batches and threads.

    shard_key: of the index; split: such as finetune/train; epoch, consumed: promoters of it taken, over all ranks;
    seed, reverse_complement: the settings that decide the batches.
    """

    __pydantic_config__ = ConfigDict(strict=True, extra="forbid")

    shard_key: str
    split: str
    seed: int
    reverse_complement: bool
    epoch: Annotated[int, Field(ge=0, le=MAX_EPOCH)] = 0
    consumed: Annotated[int, Field(ge=0)] = 0

    def to_json(self) -> str:
        """Serialize to one line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "StreamState":
        """Parse what to_json wrote. Raises UserError if the text is invalid."""
        try:
            return TypeAdapter(cls).validate_json(text)
        except ValidationError as error:
            problem = "; ".join(f"{'.'.join(map(str, e['loc']))} {e['msg']}" for e in error.errors())
            raise UserError(f"not the state of a stream: {problem}; expected what to_json() wrote") from None

    def check(self, current: "StreamState") -> None:
        """Raise UserError if this state is of another stream than `current`: promoters would repeat or be missed."""
        for name in ("shard_key", "split", "seed", "reverse_complement"):
            saved, value = getattr(self, name), getattr(current, name)
            if saved != value:
                raise UserError(
                    f"the state is of a stream with {name} {saved}, this one has {value}; "
                    "fix: resume with the same shards and settings, or start a new run"
                )


@dataclass(eq=False, repr=False)
class ShardStream:
    """The batches of one split for one rank.

    shards: a folder, or another source; reverse_complement: half of the promoters, drawn again each epoch, are read
    from the other strand; agree: called before the steps of a block, so that all ranks end with one error.
    """

    shards: Path | ShardSource
    index: Index
    split: str
    global_batch: int
    rank_slice: RankSlice
    seed: int = 0
    shuffle: bool = True
    reverse_complement: bool = False
    agree: ErrorConsensus = lambda problem: problem

    def __post_init__(self) -> None:
        if self.split not in self.index.splits:
            raise UserError(f"{self.shards}: no split {self.split}; expected one that has rows in the dataset")
        source = LocalShards(self.shards) if isinstance(self.shards, Path) else self.shards
        self._reader = RecordReader(source, self.index.splits[self.split], self.index.k)
        self.rows = self.index.rows(self.split)

    def __len__(self) -> int:
        """Steps per epoch, the same on every rank."""
        return math.ceil(self.rows / self.global_batch)

    def state(self, epoch: int = 0, consumed: int = 0) -> StreamState:
        """Make the state after `consumed` promoters of an epoch."""
        return StreamState(self.index.key, self.split, self.seed, self.reverse_complement, epoch, consumed)

    def resume(self, state: StreamState) -> Iterator[Step]:
        """Yield the rest of the epoch of a state. Raises UserError for a state of another stream."""
        state.check(self.state())
        return self.epoch(state.epoch, state.consumed)

    def epoch(self, epoch: int, consumed: int = 0) -> Iterator[Step]:
        """Yield the steps of an epoch after its first `consumed` promoters.

        Raises UserError for a position outside of the split. The iterator raises UserError for a missing or corrupt
        shard, naming file and record.
        """
        for name, value, most in (("epoch", epoch, MAX_EPOCH), ("consumed", consumed, self.rows)):
            if type(value) is not int or not 0 <= value <= most:
                raise UserError(
                    f"{self.shards}: {self.split}: {name}: expected an integer from 0 to {most:,}, got {value!a}; "
                    "fix: resume with the shards that the state is of, or start a new run"
                )
        return self._steps(epoch, consumed)

    def _steps(self, epoch: int, consumed: int) -> Iterator[Step]:
        record_rows = [[record.rows for record in shard.records] for shard in self.index.splits[self.split]]
        order = epoch_order(record_rows, self.seed, epoch, self.shuffle)
        windows = prefetch(self._windows(order, consumed), WINDOWS_AHEAD, f"read {self.split}")
        blocks = prefetch(self._blocks(windows, epoch), BLOCKS_AHEAD, f"cut {self.split}")
        with contextlib.closing(blocks):
            while consumed < self.rows:
                for batches in self._next_block(blocks):
                    number = consumed // self.global_batch
                    consumed += batches[0].global_rows
                    yield Step(epoch, number, consumed, batches)

    def _next_block(self, blocks: Iterator[list[list[Batch]]]) -> list[list[Batch]]:
        """Take the next block. Raises an error on every rank if any rank has met one."""
        block, problem = None, None
        try:
            block = next(blocks)
        except Exception as error:
            own_error, problem = error, str(error) or type(error).__name__
        any_problem = self.agree(problem)
        if block is None:
            raise own_error
        if any_problem is not None:
            raise UserError(any_problem)
        return block

    def _windows(self, order: EpochOrder, consumed: int) -> Iterator[Window]:
        """Read the windows of an epoch from promoter `consumed` on."""
        first = order.window_of(consumed)
        skip = consumed - int(order.starts[first])
        reader = self._reader
        with ThreadPoolExecutor(READERS, f"read {self.split}") as threads:
            try:
                for number in range(first, order.windows):
                    reader.prefetch(order.window_records(number, PREFETCHED_RECORDS))
                    window = reader.window(order.window_records(number), threads)
                    yield window.rows(order.window_rows(number)[skip:])
                    skip = 0
            finally:
                reader.prefetch([])

    def _blocks(self, windows: Iterator[Window], epoch: int) -> Iterator[list[list[Batch]]]:
        """Collate windows to blocks of whole global batches; the last batch is shorter."""
        size = self.global_batch
        block_rows = max(BLOCK_PROMOTERS // size, 1) * size
        strands = partial(draw_strands, self.seed, epoch) if self.reverse_complement else None

        def block(of: list[Window], global_rows: int) -> list[list[Batch]]:
            return collate(of, assign_rows(self.rank_slice, global_rows), global_rows, self.index.k, strands)

        waiting: list[Window] = []
        for window in windows:
            waiting.append(window)
            while sum(map(len, waiting)) >= block_rows:
                whole, waiting = split_windows(waiting, block_rows)
                yield block(whole, size)
        rest = sum(map(len, waiting))
        whole, last = split_windows(waiting, rest - rest % size)
        if whole:
            yield block(whole, size)
        if last:
            yield block(last, rest % size)
