"""Runs of bases that inserts share exactly, on either strand.

A run is hashed together with its reverse complement, so both strands have the same key. Runs of millions of inserts
exceed the memory: a minimizer selects the inserts that may share a run. The minimizer of a run is the smallest hash of
its words of 20 bases. Equal runs have equal minimizers, and neighbouring runs mostly have the same one. So an insert
whose minimizers occur in no other insert shares no run.
"""

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from pipeline.near_duplicates.candidates import Buckets, bucket_by_key
from pipeline.near_duplicates.packing import Indices, Words, reverse_complement
from pipeline.near_duplicates.search import Batches, Codes, encode_batches
from pipeline.near_duplicates.spill import Workspace, partition, partition_count

WORD = 20
"""Bases of a word of a minimizer."""
EXACT = 32
"""Longest run that a key of 64 bits holds exactly; keys of longer runs are hashes."""
N = 4
"""Code of an unknown base. A run with N counts as shared with no other one."""
NEVER = np.uint64(2**64 - 1)
"""Key of a run with N. No other key is NEVER: it would be a run of T only, whose canonical strand is A only."""
MINIMIZERS_PER_ROW, RUNS_PER_ROW = 8, 64
"""Expected records per row, from which the number of parts follows; a part that is too large is partitioned again."""
BYTES_PER_RECORD = 64
"""Memory per key and row while a part is bucketed."""
_OTHER_STRAND = str.maketrans("ACGT", "TGCA")
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_HALF_WORD = np.uint64(32)


def find_shared_runs(read: Callable[[], Batches], length: int, rows: int, workspace: Workspace) -> Iterator[Buckets]:
    """Find the runs of `length` bases that several rows share exactly, on either strand, as buckets of rows.

    A row that holds a run twice is in its bucket twice. Runs with N do not count. read: starts a new pass over the
    inserts, as in search.find_near_duplicates; length: 1 or more; rows: row numbers are below this. Keys of runs longer
    than 32 bases are 64-bit hashes: among a billion different runs, the chance that two have equal keys is 3 %.

    The memory is that of the workspace and a byte per row, unless one run is in more rows than fit. Temporary files
    take 16 bytes per minimizer, and 16 bytes per run of the inserts that share a minimizer.
    """
    may_share = np.zeros(rows, bool)
    minimizers = _keyed(encode_batches(read()), length, minimize_runs)
    for buckets in _bucket(minimizers, rows * MINIMIZERS_PER_ROW, workspace):
        may_share[buckets.members] = True
    count = int(np.count_nonzero(may_share))
    if count:
        selected = ((rows[may_share[rows]], codes[may_share[rows]]) for rows, codes in encode_batches(read()))
        yield from _bucket(_keyed(selected, length, hash_runs), count * RUNS_PER_ROW, workspace)


def minimize_runs(codes: Codes, length: int) -> Words:
    """Compute the minimizer of the run that starts at each base: (n, bases - length + 1) uint64; NEVER if it has none.

    The minimizers of a row repeat; a repeat of the one before becomes NEVER.
    """
    word = min(WORD, length)
    keys = hash_runs(codes, word)
    known = keys != NEVER
    keys *= _MULTIPLIER
    keys ^= keys >> _HALF_WORD
    keys[~known] = NEVER
    smallest = _minimize(keys, length - word + 1)
    repeats = smallest[:, 1:] == smallest[:, :-1]
    smallest[:, 1:][repeats] = NEVER
    return smallest


def name_shared_run(inserts: list[str], length: int) -> str:
    """Return the first run of `length` bases that all inserts share on either strand, as in the first insert."""
    for start in range(len(inserts[0]) - length + 1):
        run = inserts[0][start : start + length]
        other = run[::-1].translate(_OTHER_STRAND)
        if "N" not in run and all(run in insert or other in insert for insert in inserts):
            return run
    return ""


def hash_runs(codes: Codes, length: int) -> Words:
    """Hash the run that starts at each base, equally for both strands: (n, bases - length + 1) uint64.

    codes: (n, bases) uint8, at least `length` bases. A run with N gets the key NEVER.
    """
    own, other = _hash_strand(codes, length), _hash_strand(reverse_complement(codes), length)
    keys = np.minimum(own, other[:, ::-1])
    unknown = codes == N
    if unknown.any():
        before = np.zeros((len(codes), codes.shape[1] + 1), np.int32)
        np.cumsum(unknown, axis=1, out=before[:, 1:])
        keys[before[:, length:] > before[:, :-length]] = NEVER
    return keys


def _hash_strand(codes: Codes, length: int) -> Words:
    """Hash runs of one strand: 2 bits per base up to 32 bases; longer ones combine the keys of their parts."""
    exact = _pack_runs(codes, min(length, EXACT))
    if length <= EXACT:
        return exact
    runs = codes.shape[1] - length + 1
    starts = [*range(0, length - EXACT, EXACT), length - EXACT]
    keys = np.zeros((len(codes), runs), np.uint64)
    for start in starts:
        keys ^= exact[:, start : start + runs]
        keys *= _MULTIPLIER
        keys ^= keys >> _HALF_WORD
    return keys


def _pack_runs(codes: Codes, length: int) -> Words:
    """Pack runs of at most 32 bases: (n, bases - length + 1) uint64. Runs of 2^i bases are joined to longer ones."""
    power = (codes & 3).astype(np.uint64)
    result, done, size = None, 0, 1
    while True:
        if length & size:
            runs = codes.shape[1] - done - size + 1
            tail = power[:, done : done + runs]
            result = tail.copy() if result is None else result[:, :runs] << np.uint64(2 * size) | tail
            done += size
        if done == length:
            return result if result is not None else power
        power = power[:, : power.shape[1] - size] << np.uint64(2 * size) | power[:, size:]
        size *= 2


def _minimize(keys: Words, width: int) -> Words:
    """Find the smallest of every `width` neighbouring keys: (n, columns - width + 1) uint64."""
    size = 1
    while 2 * size <= width:
        keys = np.minimum(keys[:, : keys.shape[1] - size], keys[:, size:])
        size *= 2
    step = width - size
    return np.minimum(keys[:, : keys.shape[1] - step], keys[:, step:]) if step else keys


def _keyed(
    inserts: Iterable[tuple[Indices, Codes]], length: int, hash_all: Callable[[Codes, int], Words]
) -> Iterator[tuple[Words, Words]]:
    """Compute keys of inserts: spread keys, (n,) uint64, and records of key and row, (n, 2) uint64."""
    for rows, codes in inserts:
        if codes.shape[1] >= length and len(rows):
            keys = hash_all(codes, length)
            kept = keys != NEVER
            records = np.stack([keys[kept], np.repeat(rows, kept.sum(1)).astype(np.uint64)], axis=1)
            yield records[:, 0] * _MULTIPLIER, records


def _bucket(keyed: Iterator[tuple[Words, Words]], records: int, workspace: Workspace) -> Iterator[Buckets]:
    """Bucket rows by equal keys; buckets of a single row are dropped. records: about how many there are."""
    for part in partition(keyed, 2, partition_count(records * BYTES_PER_RECORD, workspace), workspace):
        again = partition_count(part.count * BYTES_PER_RECORD, workspace)
        chunks = ((chunk[:, 0] * _MULTIPLIER * _MULTIPLIER, chunk) for chunk in part.chunks())
        for smaller in partition(chunks, 2, again, workspace) if again > 1 else [part]:
            keys, rows = np.ascontiguousarray(smaller.read().T)
            buckets = bucket_by_key(rows.astype(np.int64), keys)
            if len(buckets.sizes):
                lowest = np.minimum.reduceat(buckets.members, buckets.starts)
                highest = np.maximum.reduceat(buckets.members, buckets.starts)
                buckets = buckets.select(lowest != highest)
            if len(buckets.sizes):
                yield buckets
