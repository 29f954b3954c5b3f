"""Stream of one rank's batches: each promoter exactly once per epoch, the same global batches on any number of ranks.

1. The order of the epoch (shuffle.py) names windows of records.
2. One thread reads the windows and checks the CRC-32 of every record (reader.py).
3. Another thread collates this rank's promoters, in order, block by block (batching.py).
4. A step is a slice of a block: no work per promoter, and little per batch.

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
from pathlib import Path

import numpy as np

from pipeline.errors import UserError
from pipeline.runtime.prefetch import prefetch
from pipeline.shards.index import Index
from pipeline.stream.batching import Batch, Block, RankSlice, Step, assign_rows, collate, split_off
from pipeline.stream.reader import RecordReader, Window
from pipeline.stream.shuffle import WINDOW_RECORDS, EpochOrder, epoch_order
from pipeline.stream.sources import LocalShards, ShardSource
from pipeline.tokens.reverse_complement import draw_strands, reverse_complement

__all__ = ["Batch", "ErrorConsensus", "RankSlice", "ShardStream", "Step", "StreamState"]

WINDOWS_AHEAD = 1
"""Windows read before they are needed, beside the one that is being read."""
READERS = 2
"""Threads that read and check records of a window side by side."""
EXPECTED_RECORDS = 32 * WINDOW_RECORDS
"""Records from a window on that are announced to the source, so that it can fetch their shards."""
BLOCKS_AHEAD = 2
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

    shard_key: str
    split: str
    seed: int
    reverse_complement: bool
    epoch: int = 0
    consumed: int = 0

    def to_json(self) -> str:
        """Serialize to one line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "StreamState":
        """Parse what to_json wrote. Raises UserError if the text is invalid."""
        try:
            state = cls(**json.loads(text))
        except (ValueError, TypeError) as error:
            raise UserError(f"not the state of a stream: {error}; expected what to_json() wrote") from None
        for name, kind in cls.__annotations__.items():
            if type(getattr(state, name)) is not kind:
                raise UserError(f"not the state of a stream: {name} is {getattr(state, name)!r}, expected {kind}")
        return state

    def check(self, current: "StreamState") -> None:
        """Raise UserError if this state is of another stream than `current`: promoters would repeat or be missed."""
        for name in ("shard_key", "split", "seed", "reverse_complement"):
            saved, value = getattr(self, name), getattr(current, name)
            if saved != value:
                raise UserError(
                    f"the state is of a stream with {name} {saved}, this one has {value}; resume with the same "
                    "shards and settings, or start a new run"
                )


class ShardStream:
    """The batches of one split for one rank."""

    def __init__(
        self,
        shards: Path | ShardSource,
        index: Index,
        split: str,
        global_batch: int,
        rank_slice: RankSlice,
        seed: int = 0,
        shuffle: bool = True,
        reverse_complement: bool = False,
        agree: ErrorConsensus = lambda problem: problem,
    ) -> None:
        """shards: a folder, or another source; reverse_complement: half of the promoters, drawn again each epoch, are
        read from the other strand; agree: called before the steps of a block, so that all ranks end with one error.
        """
        if split not in index.splits:
            raise UserError(f"{shards}: the shards hold no split {split}; it has no rows in the dataset")
        self.split = split
        self.global_batch = global_batch
        self.rank_slice = rank_slice
        self.seed = seed
        self.shuffle = shuffle
        self.reverse_complement = reverse_complement
        self.rows = index.rows(split)
        self._key, self._k = index.key, index.k
        self._agree = agree
        self._record_rows = [[record.rows for record in shard.records] for shard in index.splits[split]]
        self._reader = RecordReader(LocalShards(shards) if isinstance(shards, Path) else shards, index.splits[split])

    def __len__(self) -> int:
        """Steps per epoch, the same on every rank."""
        return math.ceil(self.rows / self.global_batch)

    def state(self, epoch: int = 0, consumed: int = 0) -> StreamState:
        """Make the state after `consumed` promoters of an epoch."""
        return StreamState(self._key, self.split, self.seed, self.reverse_complement, epoch, consumed)

    def resume(self, state: StreamState) -> Iterator[Step]:
        """Yield the rest of the epoch of a state. Raises UserError for a state of another stream."""
        state.check(self.state())
        return self.epoch(state.epoch, state.consumed)

    def epoch(self, epoch: int, consumed: int = 0) -> Iterator[Step]:
        """Yield the steps of an epoch after its first `consumed` promoters.

        Raises UserError for a missing or corrupt shard, naming file and record.
        """
        order = epoch_order(self._record_rows, self.seed, epoch, self.shuffle)
        windows = prefetch(self._windows(order, consumed), WINDOWS_AHEAD, f"read {self.split}")
        blocks = prefetch(self._blocks(windows, epoch), BLOCKS_AHEAD, f"cut {self.split}")
        with contextlib.closing(blocks):
            number = consumed // self.global_batch
            while consumed < self.rows:
                for step in self._next_block(blocks).steps(epoch, number, consumed):
                    number, consumed = step.number + 1, step.consumed
                    yield step

    def _next_block(self, blocks: Iterator[Block]) -> Block:
        """Take the next block. Raises an error on every rank if any rank has met one."""
        block, problem = None, None
        try:
            block = next(blocks)
        except Exception as error:
            own_error, problem = error, str(error) or type(error).__name__
        any_problem = self._agree(problem)
        if block is None:
            raise own_error
        if any_problem is not None:
            raise UserError(any_problem)
        return block

    def _windows(self, order: EpochOrder, consumed: int) -> Iterator[Window]:
        """Read the windows of an epoch from promoter `consumed` on."""
        if consumed >= order.rows:
            return
        first = order.window_of(consumed)
        skip = consumed - int(order.starts[first])
        reader = self._reader
        with ThreadPoolExecutor(READERS, f"read {self.split}") as threads, contextlib.ExitStack() as at_end:
            at_end.callback(reader.expect, [])
            for number in range(first, order.windows):
                reader.expect(order.records_from(number, EXPECTED_RECORDS).tolist())
                window = reader.window(order.window_records(number).tolist(), threads)
                yield window.rows(order.window_rows(number)[skip:])
                skip = 0

    def _blocks(self, windows: Iterator[Window], epoch: int) -> Iterator[Block]:
        """Cut windows into blocks of whole global batches; the last batch is shorter."""
        size = self.global_batch
        block_rows = max(BLOCK_PROMOTERS // size, 1) * size
        waiting: list[Window] = []
        for window in windows:
            waiting.append(window)
            while sum(map(len, waiting)) >= block_rows:
                block, waiting = split_off(waiting, block_rows)
                yield self._block(block, size, epoch)
        rest = sum(map(len, waiting))
        whole, last = split_off(waiting, rest - rest % size)
        if whole:
            yield self._block(whole, size, epoch)
        if last:
            yield self._block(last, rest % size, epoch)

    def _block(self, windows: list[Window], global_rows: int, epoch: int) -> Block:
        """Collate this rank's rows of global batches, with the drawn promoters read from the other strand."""
        block = collate(windows, assign_rows(self.rank_slice, global_rows), global_rows)
        if self.reverse_complement:
            drawn = np.flatnonzero(draw_strands(self.seed, epoch, block.position))
            block.tokens[drawn] = reverse_complement(block.tokens[drawn], block.lengths[drawn], self._k)
        return block
