"""Quality of an epoch's shuffle: the stream, a single lane (its order before there were lanes), a true permutation.

1. Correlation of a promoter's positions in two epochs. It is 0 on average. Its standard deviation is shown, which
   depends on the number of shards: shards are permuted over the whole epoch, records only within a lane.
2. Share of the pairs of promoters in a batch that share a batch in the next epoch, too.
3. Standard deviation of the batch means of the labels, relative to that of random batches, if the dataset were sorted
   by label. The rows of a dataset are in random order, so this is the worst case. Below 1, batches are more alike than
   random ones, as each takes promoters of all lanes.

    python -m bench.stream.shuffle_quality --plot docs/shuffle.svg
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bench.measure import markdown
from pipeline.stream.shuffle import EpochOrder, count_lanes

RECORD, RECORDS_PER_SHARD = 4096, 41
"""Promoters per record, and records in a shard of 64 MB at k = 3 and flank 150."""
EPOCHS = 12
PAIRED_BATCHES = 200
"""Batches whose pairs are followed into the next epoch."""

Order = Callable[[int], npt.NDArray[np.int64]]
"""Function epoch -> numbers of the promoters in their order: (promoters,)."""


def stream_order(promoters: int, batch: int, lanes: int) -> Order:
    """Return the order of a stream with a number of lanes."""
    records = [RECORD] * (promoters // RECORD) + ([promoters % RECORD] if promoters % RECORD else [])
    shards = [records[at : at + RECORDS_PER_SHARD] for at in range(0, len(records), RECORDS_PER_SHARD)]
    firsts = np.cumsum([0, *map(sum, shards)])

    def order(epoch: int) -> npt.NDArray[np.int64]:
        plan = EpochOrder(list(map(sum, shards)), shards.__getitem__, 0, epoch, batch, lanes)
        numbers = []
        for lane in map(plan.lane, range(lanes)):
            for window in range(len(lane.windows) - 1):
                pieces = lane.window_pieces(window).tolist()
                members = [np.arange(end - first) + firsts[shard] + row for shard, _, first, end, row in pieces]
                numbers.append(np.concatenate(members)[lane.window_rows(window)])
        flat, steps = np.concatenate(numbers), promoters // batch
        parts = np.split(flat[: steps * batch], (steps * plan.bounds[1:-1]).tolist())
        whole = np.concatenate([part.reshape(steps, -1) for part in parts], axis=1)
        return np.concatenate([whole.ravel(), flat[steps * batch :]])

    return order


def permutation_order(promoters: int) -> Order:
    """Return the order of a random permutation of all promoters."""
    return lambda epoch: np.random.default_rng([1, epoch]).permutation(promoters)


def measure(order: Order, promoters: int, batch: int) -> tuple[float, float, float]:
    """Measure the spread of the correlation of positions, the share of pairs, and the relative spread of means."""
    labels = np.sort(np.random.default_rng(0).normal(10, 2, promoters))
    correlations, again, spreads = [], [], []
    previous = positions_of(order, 0, promoters)
    for epoch in range(1, EPOCHS + 1):
        numbers = order(epoch)
        current = np.empty(promoters)
        current[numbers] = np.arange(promoters)
        correlations.append(float(np.corrcoef(previous, current)[0, 1]))
        chosen = np.random.default_rng(epoch).choice(promoters // batch, min(PAIRED_BATCHES, promoters // batch), False)
        pairs = numbers[: promoters // batch * batch].reshape(-1, batch)[chosen]
        before = np.sort(previous[pairs] // batch, axis=1)
        again.append(count_equal_pairs(before) / (len(pairs) * batch * (batch - 1) / 2))
        means = labels[numbers[: promoters // batch * batch]].reshape(-1, batch).mean(1)
        spreads.append(float(means.std() * np.sqrt(batch) / labels.std()))
        previous = current
    return float(np.std(correlations)), float(np.mean(again)), float(np.mean(spreads))


def count_equal_pairs(rows: npt.NDArray[np.float64]) -> float:
    """Count the pairs of equal values within sorted rows."""
    total = 0.0
    for row in rows:
        counts = np.diff(np.flatnonzero(np.concatenate([[True], np.diff(row) != 0, [True]])))
        total += float((counts * (counts - 1) / 2).sum())
    return total


def positions_of(order: Order, epoch: int, promoters: int) -> npt.NDArray[np.float64]:
    """Compute the position of each promoter in an epoch: (promoters,)."""
    positions = np.empty(promoters)
    positions[order(epoch)] = np.arange(promoters)
    return positions


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--promoters", type=int, default=6_510_079, help="default: 6510079")
    options.add_argument("--batch", type=int, default=1024, help="global batch; default: 1024")
    options.add_argument("--plot", type=Path, help=".svg file to write; default: no plot")
    args = options.parse_args()
    lanes = count_lanes(args.promoters, args.batch)
    orders = {
        f"the stream, {lanes} lanes": stream_order(args.promoters, args.batch, lanes),
        "a single lane": stream_order(args.promoters, args.batch, 1),
        "a true permutation": permutation_order(args.promoters),
    }
    rows = []
    for name, order in orders.items():
        spread, again, means = measure(order, args.promoters, args.batch)
        rows.append([name, f"{spread:.4f}", f"{again:.2e}", f"{means:.2f}"])
    print(f"{EPOCHS} epochs of {args.promoters:,} promoters in batches of {args.batch:,}.\n")
    print(markdown(["", "positions in two epochs", "pairs again in a batch", "batch means, sorted data"], rows))
    if args.plot:
        plot(list(orders.items()), args.promoters, args.plot)


def plot(orders: list[tuple[str, Order]], promoters: int, path: Path) -> None:
    """Plot the positions of 4,000 promoters in one epoch against those in the next."""
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt

    mpl.rcParams.update({"svg.hashsalt": "shuffle", "svg.fonttype": "none"})
    figure, axes = plt.subplots(1, len(orders), figsize=(4 * len(orders), 4), layout="constrained", sharey=True)
    shown = np.random.default_rng(0).choice(promoters, 4000, replace=False)
    for axis, (title, order) in zip(axes, orders, strict=True):
        first, second = (positions_of(order, epoch, promoters)[shown] / promoters for epoch in range(2))
        axis.scatter(first, second, s=1, color="#0072b2", rasterized=True)
        axis.set(title=title, xlabel="place in epoch 0", aspect="equal")
    axes[0].set_ylabel("place in epoch 1")
    figure.suptitle(f"{promoters:,} promoters")
    figure.savefig(path, metadata={"Date": None}, dpi=150)


if __name__ == "__main__":
    main()
