"""Measure the search for near-duplicates and shared runs among generated inserts: CPU seconds, peak memory.

python -m bench.dataset.near_duplicates 1000000 6739258 --memory 512      numbers of inserts, MiB of the search
python -m bench.dataset.near_duplicates 1000000 --overlap 40              also the inserts that share 40 bases

2 % of the inserts are near another one, half of them on the other strand. The inserts are generated as they are read,
so the peak memory is that of the search. Each number runs in a process of its own.
"""

import argparse
import multiprocessing
import resource
import time
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.near_duplicates.clusters import DisjointSets
from pipeline.near_duplicates.runs import find_shared_runs
from pipeline.near_duplicates.search import Equal, find_near_duplicates
from pipeline.near_duplicates.spill import Workspace

SHARES = {60: 0.004, 70: 0.004, 77: 0.01, 78: 0.024, 79: 0.128, 80: 0.82, 81: 0.005, 82: 0.003, 100: 0.002}
"""Share of each length among the inserts of the yeast assay, about."""
BASES = np.frombuffer(b"ACGTN", np.uint8)
BASE_SHARES = (0.226, 0.192, 0.281, 0.301)
HOLDS_N = 0.004
PLANTED = 50
"""Every 50th insert is near the one before it."""
PART = 50_000


def inserts(number: int) -> Iterator[tuple[npt.NDArray[np.int64], pa.Array]]:
    """Generate rows and inserts of the assay's lengths and bases, shortest first."""
    row = 0
    for length, share in SHARES.items():
        end = number if length == max(SHARES) else row + round(number * share)
        while row < end:
            rows = np.arange(row, min(row + PART, end))
            yield rows, _part(np.random.default_rng(row), len(rows), length)
            row += len(rows)


def _part(random: np.random.Generator, rows: int, length: int) -> pa.Array:
    codes = np.searchsorted(np.cumsum(BASE_SHARES)[:3], random.random((rows, length), np.float32)).astype(np.uint8)
    some = np.flatnonzero(random.random(rows) < HOLDS_N)
    codes[some, random.integers(0, length, len(some))] = 4
    copies = np.arange(1, rows, PLANTED)
    codes[copies] = codes[copies - 1]
    codes[copies[::2]] = np.array([3, 2, 1, 0, 4], np.uint8)[codes[copies[::2], ::-1]]
    for _ in range(2):
        codes[copies, random.integers(0, length, len(copies))] = random.integers(0, 4, len(copies))
    offsets = np.arange(0, (rows + 1) * length, length, dtype=np.int32)
    return pa.StringArray.from_buffers(rows, pa.py_buffer(offsets), pa.py_buffer(BASES[codes]))


def measure(number: int, memory_mib: int, overlap: int, folder: str | None) -> None:
    """Run the search once and print a row of the table."""
    start, workspace = time.perf_counter(), Workspace(memory_mib << 20, folder)
    sets = DisjointSets(number)
    for relation in find_near_duplicates(inserts(number), 2, workspace):
        sets.join(*((relation.rows, relation.first) if isinstance(relation, Equal) else (relation.i, relation.j)))
    if overlap:
        for runs in find_shared_runs(lambda: inserts(number), overlap, number, workspace):
            sets.join(np.repeat(runs.members[runs.starts], runs.sizes), runs.members)
    rows = sum(len(batch) for batch, _ in sets.shared())
    usage = resource.getrusage(resource.RUSAGE_SELF)
    cpu, peak = usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1e6
    wall = time.perf_counter() - start
    print(f"| {number:,} | {memory_mib:,} | {rows:,} | {wall:.1f} | {cpu:.1f} | {peak:.2f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("numbers", type=int, nargs="+")
    parser.add_argument("--memory", type=int, default=512, help="memory of the search, MiB")
    parser.add_argument("--overlap", type=int, default=0, help="bases of shared runs")
    parser.add_argument("--folder", help="folder of temporary files")
    arguments = parser.parse_args()
    print("| inserts | memory of the search, MiB | in clusters | wall s | CPU s | peak GB |")
    print("|--:|--:|--:|--:|--:|--:|")
    for number in arguments.numbers:
        process = multiprocessing.get_context("spawn").Process(
            target=measure, args=(number, arguments.memory, arguments.overlap, arguments.folder)
        )
        process.start()
        process.join()


if __name__ == "__main__":
    main()
