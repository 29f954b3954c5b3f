"""Search near-duplicates on both strands within a bounded memory, among inserts that arrive sorted by length.

1. The inserts of one length are packed. Each is kept in its canonical strand, beside the other strand.
2. Equal inserts become one.
3. Inserts that exceed the memory are partitioned by the bases of a block (see pairs.py): inserts that share the block
   are in one part. A part that still exceeds the memory is partitioned again by its other bases.
4. Each part is searched in memory.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.errors import UserError
from pipeline.io.arrow import view_strings
from pipeline.near_duplicates.candidates import cut_blocks
from pipeline.near_duplicates.packing import Indices, Packed, Words, encode, pack, reverse_complement
from pipeline.near_duplicates.pairs import MIN_BLOCK_BASES, compare_between, compare_within, group_equal
from pipeline.near_duplicates.spill import Records, Workspace, partition, partition_count
from pipeline.tokens.kmers import ALPHABET

Codes = npt.NDArray[np.uint8]
Batches = Iterable[tuple[Indices, pa.Array]]
"""Rows, (n,) int64, and their inserts, (n,) strings. Lengths ascend over all batches."""
Chain = list[tuple[Indices, int]]
"""Blocks of positions by which inserts were partitioned, each with the bases skipped in the longer insert."""

BATCH = 1 << 14
"""Inserts encoded at once."""
BYTES_PER_INSERT = 140
"""Memory of a search in memory per insert and strand, beside its words: keys, order, buckets."""
ONE = np.uint64(1)


@dataclass(frozen=True)
class Equal:
    """Rows with equal inserts on either strand: row rows[i] has the insert of row first[i]; (n,) int64 each.

    flipped: whether the canonical strand is the reverse complement of the row's insert, (n,) bool. The first row of
    each insert is included.
    """

    rows: Indices
    first: Indices
    flipped: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Near:
    """Rows i and j with near-duplicate inserts on either strand; (n,) int64 each.

    Both are the first rows of their inserts.
    """

    i: Indices
    j: Indices


@dataclass(frozen=True)
class Source:
    """Inserts of one length, on one strand or on both, that can be read several times."""

    length: int
    count: int
    chunks: Callable[[], Iterator[Packed]]

    def load(self) -> Packed:
        """Read all inserts."""
        chunks = list(self.chunks())
        words = [np.empty((-(-self.length // 20), 0), np.uint64), *(chunk.words for chunk in chunks)]
        rows = np.concatenate([np.empty(0, np.int64), *(chunk.rows for chunk in chunks)])
        reverse = np.concatenate([np.empty(0, bool), *(_strands(chunk) for chunk in chunks)])
        return Packed(self.length, np.concatenate(words, axis=1), rows, reverse)

    def sample(self) -> Packed:
        """Read the first inserts."""
        return next(self.chunks())


def encode_batches(batches: Batches) -> Iterator[tuple[Indices, Codes]]:
    """Encode inserts of one length at a time: their rows, (n,) int64, and codes, (n, length) uint8.

    Raises UserError for nulls and for letters other than ACGTN.
    """
    for rows, column in batches:
        if column.null_count:
            raise UserError(f"{column.null_count:,} of {len(column):,} inserts are null; expected letters {ALPHABET}")
        text, starts, lengths = view_strings(column)
        cuts = np.union1d(np.flatnonzero(np.diff(lengths)) + 1, np.arange(0, len(rows), BATCH))
        for start, stop in zip(cuts, [*cuts[1:], len(rows)], strict=True):
            yield rows[start:stop], encode(text, starts[start:stop], int(lengths[start]))


def find_near_duplicates(batches: Batches, max_mismatches: int, workspace: Workspace) -> Iterator[Equal | Near]:
    """Find equal inserts and near-duplicates, each pair of them once per strand.

    Near-duplicates have equal length and 1 to max_mismatches mismatches (Hamming distance), or become equal when one
    base is deleted from the longer one; one of the two may be the reverse complement. N equals only N. The rows of an
    `Equal` come before any pair of them. Inserts may have any length, 0 included; max_mismatches: 0 to about 4: with
    more, blocks are so short that most inserts share one. Raises UserError for other letters than ACGTN, for nulls and
    for a negative max_mismatches.

    The memory is that of the workspace, unless more inserts than fit are equal in all but 12 bases. Temporary files
    take at most 230 bytes per insert of 80 bases.
    """
    if max_mismatches < 0:
        raise UserError(f"{max_mismatches} mismatches: expected 0 or more")
    return _find_by_length(batches, max_mismatches, workspace)


def _find_by_length(batches: Batches, max_mismatches: int, workspace: Workspace) -> Iterator[Equal | Near]:
    shorter: tuple[int, Records] | None = None
    for length, records in _records_by_length(batches, workspace):
        distinct = Records(records.width, workspace)
        yield from _drop_equal(length, records, distinct, workspace)
        records.close()
        both, forward = _source(length, distinct, (False, True)), _source(length, distinct, (False,))
        positions = np.arange(length)
        yield from _find_mismatches(both, [], positions, max_mismatches, [], workspace)
        if shorter is not None and shorter[0] == length - 1:
            short = _source(*shorter, (False, True))
            yield from _find_indels(short, forward, [], positions[:-1], [], workspace)
        if shorter is not None:
            shorter[1].close()
        shorter = length, distinct


def _records_by_length(batches: Batches, workspace: Workspace) -> Iterator[tuple[int, Records]]:
    """Collect the inserts of each length: 2 * row + flipped, the words of the canonical and of the other strand."""
    length, records = -1, None
    for rows, codes in encode_batches(batches):
        own, other = pack(codes), pack(reverse_complement(codes))
        if records is None or codes.shape[1] != length:
            if records is not None:
                yield length, records
            length, records = codes.shape[1], Records(1 + 2 * len(own), workspace)
        flipped = _is_above(own, other)
        first, second = np.where(flipped, other, own), np.where(flipped, own, other)
        records.append(np.concatenate([[rows.astype(np.uint64) << ONE | flipped], first, second]).T)
    if records is not None:
        yield length, records


def _is_above(left: Words, right: Words) -> npt.NDArray[np.bool_]:
    """Compare inserts of the words `left` and `right`, (words, n) uint64, in any fixed order."""
    above = np.zeros(left.shape[1], bool)
    for a, b in zip(left, right, strict=True):
        above = np.where(a == b, above, a > b)
    return above


def _drop_equal(length: int, records: Records, distinct: Records, workspace: Workspace) -> Iterator[Equal]:
    """Append the first record of each insert to `distinct`, and find the rows of the others."""
    positions, words = np.arange(length), (records.width - 1) // 2
    size = records.count * (8 * records.width + BYTES_PER_INSERT)

    def chunks() -> Iterator[tuple[Words, Words]]:
        for chunk in records.chunks():
            inserts = Packed(length, chunk[:, 1 : 1 + words].T, chunk[:, 0].astype(np.int64))
            yield inserts.keys(np.arange(len(chunk)), positions), chunk

    for part in partition(chunks(), records.width, partition_count(size, workspace), workspace):
        if not part.count:
            continue
        rows = part.read()
        inserts = Packed(length, np.ascontiguousarray(rows[:, 1 : 1 + words].T), (rows[:, 0] >> ONE).astype(np.int64))
        first = group_equal(inserts)
        is_first = first == np.arange(len(first))
        distinct.append(rows[is_first])
        several = np.flatnonzero(np.bincount(first, minlength=len(first))[first] > 1)
        if len(several):
            flipped = (rows[several, 0] & ONE).astype(bool)
            yield Equal(inserts.rows[several], inserts.rows[first[several]], flipped)


def _source(length: int, records: Records, strands: tuple[bool, ...]) -> Source:
    """Read the records of distinct inserts on one strand or on both."""
    words = (records.width - 1) // 2

    def chunks() -> Iterator[Packed]:
        for chunk in records.chunks():
            rows = (chunk[:, 0] >> ONE).astype(np.int64)
            for reverse in strands:
                start = 1 + words * reverse
                strand = np.ascontiguousarray(chunk[:, start : start + words].T)
                yield Packed(length, strand, rows, np.full(len(rows), reverse))

    return Source(length, records.count * len(strands), chunks)


def _strands(inserts: Packed) -> npt.NDArray[np.bool_]:
    return np.zeros(len(inserts.rows), bool) if inserts.reverse is None else inserts.reverse


def _find_mismatches(
    source: Source, chain: Chain, positions: Indices, max_mismatches: int, earlier: list[Indices], workspace: Workspace
) -> Iterator[Near]:
    """Find mismatch pairs of inserts that are equal on the chain; positions: those outside the chain."""
    if not source.count:
        return
    if _fits(workspace, source) or _is_short(positions, chain, max_mismatches + 1):
        inserts = source.load()
        keys = _chain_keys(inserts, chain) if chain else None
        for i, j in compare_within(inserts, keys, positions, max_mismatches, earlier):
            yield Near(inserts.rows[i], inserts.rows[j])
        return
    blocks = _cut(source, chain, positions, max_mismatches + 1)
    for number, block in enumerate(blocks):
        longer_chain = [*chain, (block, 0)]
        for part in _partition(source, longer_chain, False, workspace, _parts(workspace, source)):
            rest = np.setdiff1d(positions, block)
            done = [*earlier, *blocks[:number]]
            yield from _find_mismatches(part, longer_chain, rest, max_mismatches, done, workspace)


def _find_indels(
    short: Source, long: Source, chain: Chain, positions: Indices, earlier: list[Indices], workspace: Workspace
) -> Iterator[Near]:
    """Find indel pairs of inserts that are equal on the chain; positions: those outside, of the short insert."""
    if not short.count or not long.count:
        return
    if _fits(workspace, short, long) or _is_short(positions, chain, 2):
        shorts, longs = short.load(), long.load()
        keys = (_chain_keys(shorts, chain), _chain_keys(longs, chain, True)) if chain else None
        for i, j in compare_between(shorts, longs, keys, positions, earlier):
            yield Near(shorts.rows[i], longs.rows[j])
        return
    count = _parts(workspace, short, long)
    first, second = _cut(max(short, long, key=lambda source: source.count), chain, positions, 2)
    for block, rest, skip, done in ((first, second, 0, earlier), (second, first, 1, [*earlier, first])):
        longer_chain = [*chain, (block, skip)]
        shorts_of, longs_of = (
            _partition(source, longer_chain, source is long, workspace, count) for source in (short, long)
        )
        for parts in zip(shorts_of, longs_of, strict=True):
            yield from _find_indels(*parts, longer_chain, rest, done, workspace)


def _size(source: Source) -> int:
    return source.count * (BYTES_PER_INSERT + 8 * (1 + -(-source.length // 20)))


def _fits(workspace: Workspace, *sources: Source) -> bool:
    return sum(map(_size, sources)) <= workspace.memory_bytes


def _parts(workspace: Workspace, *sources: Source) -> int:
    return max(2, partition_count(2 * sum(map(_size, sources)), workspace))


def _is_short(positions: Indices, chain: Chain, blocks: int) -> bool:
    return len(positions) < blocks or (bool(chain) and len(positions) < MIN_BLOCK_BASES * blocks)


def _cut(source: Source, chain: Chain, positions: Indices, number: int) -> list[Indices]:
    sample = source.sample()
    group = _chain_keys(sample, chain) if chain else None
    return cut_blocks(sample, np.arange(len(sample.rows)), group, positions, number)


def _chain_keys(inserts: Packed, chain: Chain, is_long: bool = False) -> Words:
    """Hash the bases of a chain of blocks: (n,) uint64."""
    keys = None
    for block, skip in chain:
        keys = inserts.keys(np.arange(len(inserts.rows)), block, keys, skip if is_long else 0)
    assert keys is not None
    return keys


def _partition(source: Source, chain: Chain, is_long: bool, workspace: Workspace, count: int) -> Iterator[Source]:
    """Partition inserts by their bases on a chain of blocks."""
    width = 1 + -(-source.length // 20)

    def keyed() -> Iterator[tuple[Words, Words]]:
        for inserts in source.chunks():
            entries = inserts.rows.astype(np.uint64) << ONE | _strands(inserts)
            yield _chain_keys(inserts, chain, is_long), np.concatenate([entries[None], inserts.words]).T

    def unpack(records: Records) -> Iterator[Packed]:
        for chunk in records.chunks():
            rows, reverse = (chunk[:, 0] >> ONE).astype(np.int64), (chunk[:, 0] & ONE).astype(bool)
            yield Packed(source.length, np.ascontiguousarray(chunk[:, 1:].T), rows, reverse)

    for records in partition(keyed(), width, count, workspace):
        yield Source(source.length, records.count, partial(unpack, records))
