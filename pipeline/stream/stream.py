"""Stream of the batches of one rank: each promoter once per epoch, the same global batches on any number of ranks.

1. The order of the epoch (shuffle.py) lists windows of records.
2. One thread reads the windows and checks the CRC-32 of every record (reader.py).
3. Another thread collates the promoters of this rank, in order, in blocks (batching.py).
4. The batches of a step are slices of the arrays of a block: no work per promoter, and little per batch.

All ranks make the same number of steps. The state is a position: epoch, and promoters consumed. A resume starts at
the window of its position.

Memory of a rank: at most five windows (26 MB each at k = 3 and flank 150) and four blocks (7 MB each, divided by the
number of ranks). A block is as wide as its longest promoter.
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
from pipeline.stream.shuffle import WINDOW_RECORDS, EpochOrder, make_epoch_order
from pipeline.stream.sources import LocalShards, ShardSource
from pipeline.tokens.reverse_complement import draw_strands

__all__ = ["Batch", "ErrorConsensus", "RankSlice", "ShardStream", "Step", "StreamState"]

PREFETCHED_WINDOWS = 1
"""Complete windows that wait to be collated."""
READERS = 2
"""Threads that read and check the records of a window in parallel."""
PREFETCHED_RECORDS = 32 * WINDOW_RECORDS
"""Records from the first one of a window on whose shards are prefetched."""
PREFETCHED_BLOCKS = 2
"""Complete blocks that wait to be consumed."""
MAX_EPOCH = 2**31
"""Largest valid epoch of a state."""
BLOCK_PROMOTERS = 16_384
"""Promoters per block, over all ranks. Rounded to a whole number of steps, at least one."""

ErrorConsensus = Callable[[str | None], str | None]
"""The error of this rank, or None -> the error of any rank, or None. All ranks call it at the same points."""


@dataclass(frozen=True)
class StreamState:
    """Position of a stream. It does not depend on the number of ranks, micro-batches and threads.

    shard_key: of the index; split: such as finetune/train; seed, reverse_complement: settings that determine the
    batches; epoch: from 0; consumed: promoters of the epoch that were returned, over all ranks.
    """

    __pydantic_config__ = ConfigDict(strict=True, extra="forbid")

    shard_key: str
    split: str
    seed: int
    reverse_complement: bool
    epoch: Annotated[int, Field(ge=0, le=MAX_EPOCH)] = 0
    consumed: Annotated[int, Field(ge=0)] = 0

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
    rank; reverse_complement: read half of the promoters, drawn again per epoch, from the other strand; agree:
    collective function that shares the first error of any rank, called before each block of steps.

    Raises UserError for an unknown split.
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
        self._reader = RecordReader(source, self.index.splits[self.split], self.index.k, self.index.label_count)
        self.rows = self.index.rows(self.split)

    def __len__(self) -> int:
        """Count the steps per epoch, the same on every rank."""
        return math.ceil(self.rows / self.global_batch)

    def state(self, epoch: int = 0, consumed: int = 0) -> StreamState:
        """Make the state of the stream after `consumed` promoters of an epoch."""
        return StreamState(self.index.key, self.split, self.seed, self.reverse_complement, epoch, consumed)

    def resume(self, state: StreamState) -> Iterator[Step]:
        """Yield the remaining steps of the epoch of a state.

        Raises UserError for a state of another stream, or with a position outside of the split.
        """
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
                    "fix: resume with the same shards, or start a new run"
                )
        return self._iterate_steps(epoch, consumed)

    def _iterate_steps(self, epoch: int, consumed: int) -> Iterator[Step]:
        record_rows = [[record.rows for record in shard.records] for shard in self.index.splits[self.split]]
        order = make_epoch_order(record_rows, self.seed, epoch, self.shuffle)
        windows = prefetch(self._read_windows(order, consumed), PREFETCHED_WINDOWS, f"read {self.split}")
        blocks = prefetch(self._collate_blocks(windows, epoch), PREFETCHED_BLOCKS, f"collate {self.split}")
        with contextlib.closing(blocks):
            while consumed < self.rows:
                for batches in self._next_block(blocks):
                    number = consumed // self.global_batch
                    consumed += batches[0].global_rows
                    yield Step(epoch, number, consumed, batches)

    def _next_block(self, blocks: Iterator[list[list[Batch]]]) -> list[list[Batch]]:
        """Take the next block. Raises UserError on every rank if any rank has an error."""
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

    def _read_windows(self, order: EpochOrder, consumed: int) -> Iterator[Window]:
        """Read the windows of an epoch, without its first `consumed` promoters."""
        first = order.window_of(consumed)
        skip = consumed - int(order.starts[first])
        reader = self._reader
        with ThreadPoolExecutor(READERS, f"read {self.split}") as threads:
            try:
                for number in range(first, order.windows):
                    reader.prefetch(order.window_records(number, PREFETCHED_RECORDS))
                    window = reader.read_window(order.window_records(number), threads)
                    yield window.rows(order.window_rows(number)[skip:])
                    skip = 0
            finally:
                reader.prefetch([])

    def _collate_blocks(self, windows: Iterator[Window], epoch: int) -> Iterator[list[list[Batch]]]:
        """Collate windows to blocks of complete global batches. The last batch of an epoch may be shorter."""
        size = self.global_batch
        block_rows = max(BLOCK_PROMOTERS // size, 1) * size
        strands = partial(draw_strands, self.seed, epoch) if self.reverse_complement else None

        def collate_block(block_windows: list[Window], global_rows: int) -> list[list[Batch]]:
            return collate(block_windows, assign_rows(self.rank_slice, global_rows), global_rows, self.index.k, strands)

        waiting: list[Window] = []
        for window in windows:
            waiting.append(window)
            while sum(map(len, waiting)) >= block_rows:
                whole, waiting = split_windows(waiting, block_rows)
                yield collate_block(whole, size)
        rest = sum(map(len, waiting))
        whole, last = split_windows(waiting, rest - rest % size)
        if whole:
            yield collate_block(whole, size)
        if last:
            yield collate_block(last, rest % size)
