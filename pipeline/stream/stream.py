"""Shards -> batches for one rank: each promoter exactly once an epoch, the same global batches on any number of ranks.

1. the order of the epoch (order.py) names windows of records;
2. one thread reads the windows and checks the hash of every record (windows.py);
3. another takes the windows' promoters in order and lays this rank's side by side, a block of steps at a time;
4. a step is a slice of a block (batches.py): nothing is done for each promoter, and little for each batch.

All ranks make the same number of steps. State is a position: (epoch, promoters consumed). Going on from it reads the
window it lies in and no other.

Memory of a rank: at most five windows (one being read, one beside it, one waiting, two being cut; 26 MB each at k = 3
and flank 150) and four blocks (7 MB each, a part of that with more ranks; as wide as their longest promoter).
"""

import contextlib
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from pipeline.errors import UserError
from pipeline.runtime.prefetch import ahead
from pipeline.shards.index import Index
from pipeline.stream.batching import Batch, Block, Part, Step, lay_out, share_of, split_off
from pipeline.stream.reader import RecordReader, Window
from pipeline.stream.shuffle import WINDOW_RECORDS, EpochOrder, epoch_order
from pipeline.stream.sources import LocalShards, ShardSource
from pipeline.stream.state import StreamState
from pipeline.tokens.reverse_complement import drawn_strands, reverse_complement

__all__ = ["Batch", "Part", "Step", "Stream"]

WINDOWS_AHEAD = 1
"""Windows read before they are needed, beside the one that is being read."""
READERS = 2
"""Threads that read and hash records of a window side by side."""
EXPECTED_RECORDS = 32 * WINDOW_RECORDS
"""Records from a window on that a source of shards is told of, so that it can fetch them."""
BLOCKS_AHEAD = 2
BLOCK_PROMOTERS = 16_384
"""Promoters laid side by side at once, over all ranks; a whole number of steps, one at least."""

Agree = Callable[[str | None], str | None]


class Stream:
    """The batches of one split for one rank."""

    def __init__(
        self,
        shards: Path | ShardSource,
        index: Index,
        split: str,
        global_batch: int,
        part: Part,
        seed: int = 0,
        shuffle: bool = True,
        reverse_complement: bool = False,
        agree: Agree = lambda problem: problem,
    ) -> None:
        """shards: a folder, or another source; reverse_complement: half of the promoters, drawn anew each epoch, come
        from the other strand; agree: what is wrong on this rank, or None, -> what is wrong on any. All ranks call it at
        the same places, before anything of a block is given out, so that all end with one error and none waits.
        """
        if split not in index.splits:
            raise UserError(f"{shards}: the shards hold no split {split}; it has no rows in the dataset")
        self.split = split
        self.global_batch = global_batch
        self.part = part
        self.seed = seed
        self.shuffle = shuffle
        self.reverse_complement = reverse_complement
        self.rows = index.rows(split)
        self._key, self._k = index.key, index.k
        self._agree = agree
        self._shard_rows = [[record.rows for record in shard.records] for shard in index.splits[split]]
        self._reader = RecordReader(LocalShards(shards) if isinstance(shards, Path) else shards, index.splits[split])

    def __len__(self) -> int:
        """Steps an epoch, the same on every rank."""
        return math.ceil(self.rows / self.global_batch)

    def state(self, epoch: int = 0, consumed: int = 0) -> StreamState:
        """The state after `consumed` promoters of an epoch."""
        return StreamState(self._key, self.split, self.seed, self.reverse_complement, epoch, consumed)

    def resume(self, state: StreamState) -> Iterator[Step]:
        """The rest of the epoch that a state lies in. Raises UserError for a state of another stream."""
        state.check(self.state())
        return self.epoch(state.epoch, state.consumed)

    def epoch(self, epoch: int, consumed: int = 0) -> Iterator[Step]:
        """The steps of an epoch after its first `consumed` promoters.

        Raises UserError for a shard that is missing or damaged, naming file and record.
        """
        order = epoch_order(self._shard_rows, self.seed, epoch, self.shuffle)
        windows = ahead(self._windows(order, consumed), WINDOWS_AHEAD, f"read {self.split}")
        blocks = ahead(self._blocks(windows, epoch), BLOCKS_AHEAD, f"cut {self.split}")
        with contextlib.closing(blocks):
            number = consumed // self.global_batch
            while consumed < self.rows:
                for step in self._agreed(blocks).steps(epoch, number, consumed):
                    number, consumed = step.number + 1, step.consumed
                    yield step

    def _agreed(self, blocks: Iterator[Block]) -> Block:
        """The next block, if no rank has met an error."""
        block, problem = None, None
        try:
            block = next(blocks)
        except Exception as error:
            mine, problem = error, str(error) or type(error).__name__
        everyones = self._agree(problem)
        if block is None:
            raise mine
        if everyones is not None:
            raise UserError(everyones)
        return block

    def _windows(self, order: EpochOrder, consumed: int) -> Iterator[Window]:
        """The windows of an epoch from promoter `consumed` on."""
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
        """Cut windows into blocks of whole global batches; the last batch is the shorter one."""
        size = self.global_batch
        share = share_of(self.part, size)
        block_rows = max(BLOCK_PROMOTERS // size, 1) * size
        waiting: list[Window] = []
        for window in windows:
            waiting.append(window)
            while sum(map(len, waiting)) >= block_rows:
                block, waiting = split_off(waiting, block_rows)
                yield self._strands(lay_out(block, share, size), epoch)
        rest = sum(map(len, waiting))
        whole, last = split_off(waiting, rest - rest % size)
        if whole:
            yield self._strands(lay_out(whole, share, size), epoch)
        if last:
            yield self._strands(lay_out(last, share_of(self.part, rest % size), rest % size), epoch)

    def _strands(self, block: Block, epoch: int) -> Block:
        """The block with the drawn promoters read from the other strand."""
        if self.reverse_complement:
            drawn = np.flatnonzero(drawn_strands(self.seed, epoch, block.position))
            block.tokens[drawn] = reverse_complement(block.tokens[drawn], block.lengths[drawn], self._k)
        return block
