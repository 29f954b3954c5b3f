"""Measure the search for near-duplicates among generated inserts: wall and CPU seconds, peak memory.

python -m bench.dataset.near_duplicates 6739258      number of inserts, 2 % of them near another one
"""

import argparse
import resource
import time

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.near_duplicates.clusters import find_clusters

LENGTHS = np.array([60, 70, 77, 78, 79, 80, 81, 82, 100])
SHARES = np.array([0.004, 0.004, 0.01, 0.024, 0.128, 0.82, 0.005, 0.003, 0.002])
BASES = np.frombuffer(b"ACGTN", np.uint8)
BASE_SHARES = (0.226, 0.192, 0.281, 0.301)
HOLDS_N = 0.004
PLANTED = 0.02
PART = 50_000


def inserts(number: int, seed: int = 0) -> pa.ChunkedArray:
    """Generate inserts of the assay's lengths and bases; every 50th is its predecessor with a base changed."""
    random = np.random.default_rng(seed)
    return pa.chunked_array([_part(random, min(PART, number - start)) for start in range(0, number, PART)])


def _part(random: np.random.Generator, rows: int) -> pa.Array:
    width = int(LENGTHS.max())
    lengths = random.choice(LENGTHS, rows, p=SHARES)
    edges = np.cumsum(BASE_SHARES)[:3]
    bases = BASES[np.searchsorted(edges, random.random((rows, width), np.float32))]
    some = np.flatnonzero(random.random(rows) < HOLDS_N)
    bases[some, random.integers(0, 57, len(some))] = ord("N")
    _plant(random, bases, lengths, np.arange(1, rows, round(1 / PLANTED)))
    data = bases[np.arange(width) < lengths[:, None]]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.StringArray.from_buffers(rows, pa.py_buffer(offsets), pa.py_buffer(data))


def _plant(
    random: np.random.Generator, bases: npt.NDArray[np.uint8], lengths: npt.NDArray[np.int64], copies: npt.NDArray
) -> None:
    """Replace some rows by the row before, with two bases redrawn or, in every third one, a base deleted."""
    bases[copies], lengths[copies] = bases[copies - 1], lengths[copies - 1]
    for _ in range(2):
        bases[copies, random.integers(0, 57, len(copies))] = random.choice(BASES[:4], len(copies))
    shorter = copies[::3]
    bases[shorter] = bases[shorter - 1]
    for row, place in zip(shorter, random.integers(0, 57, len(shorter)), strict=True):
        bases[row, place:-1] = bases[row, place + 1 :]
    lengths[shorter] -= 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("number", type=int)
    column = inserts(parser.parse_args().number)
    before = resource.getrusage(resource.RUSAGE_SELF)
    start = time.perf_counter()
    groups = find_clusters(column)
    wall = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    leaders = len(np.unique(groups.leaders))
    print(f"{len(column):,} inserts: {len(groups.rows):,} have near-duplicates, in {leaders:,} groups")
    print(f"wall {wall:.1f} s, CPU {cpu:.1f} s")
    print(
        f"peak memory {after.ru_maxrss / 2**10:,.0f} MiB, of which {before.ru_maxrss / 2**10:,.0f} MiB were the inserts"
    )


if __name__ == "__main__":
    main()
