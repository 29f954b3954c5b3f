"""Quality of an epoch's shuffle, compared with a random permutation of all promoters.

Two correlations are measured: of the labels of consecutive promoters, and of a promoter's positions in two epochs. The
first is 0 for the stream because the dataset itself is in random order. For a dataset sorted by label, windows of a few
records are not enough, as the second line of the table shows. The second is 0 on average. Its standard
deviation depends on the number of shards: shards are permuted over the whole epoch, records only within a window.

    python -m bench.stream.shuffle_quality --plot docs/shuffle.svg
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.stream.shuffle import WINDOW_RECORDS, make_epoch_order

RECORD, RECORDS_PER_SHARD = 4096, 41
"""Promoters per record, and records in a shard of 64 MB at k = 3 and flank 150."""

EPOCHS = 12

Order = Callable[[int], npt.NDArray[np.int64]]
"""Function epoch -> numbers of the promoters in their order: (promoters,)."""


def stream_order(promoters: int) -> Order:
    """Return the order of the stream."""
    records = [RECORD] * (promoters // RECORD) + ([promoters % RECORD] if promoters % RECORD else [])
    shards = [records[at : at + RECORDS_PER_SHARD] for at in range(0, len(records), RECORDS_PER_SHARD)]

    def order(epoch: int) -> npt.NDArray[np.int64]:
        plan = make_epoch_order(shards, seed=0, epoch=epoch)
        windows = []
        for number in range(plan.windows):
            members = [np.arange(r * RECORD, r * RECORD + records[r]) for r in plan.window_records(number)]
            windows.append(np.concatenate(members)[plan.window_rows(number)])
        return np.concatenate(windows)

    return order


def permutation_order(promoters: int) -> Order:
    """Return the order of a random permutation of all promoters."""
    return lambda epoch: np.random.default_rng([1, epoch]).permutation(promoters)


def correlate_neighbours(order: Order, labels: npt.NDArray[np.float64]) -> list[float]:
    """Compute the correlation of the labels of consecutive promoters in each epoch."""
    epochs = [labels[order(epoch)] for epoch in range(EPOCHS)]
    return [correlate(values[:-1], values[1:]) for values in epochs]


def correlate_positions(order: Order, promoters: int) -> list[float]:
    """Compute the correlation of the promoters' positions in consecutive epochs."""
    correlations, previous = [], positions_of(order, 0, promoters)
    for epoch in range(1, EPOCHS + 1):
        current = positions_of(order, epoch, promoters)
        correlations.append(correlate(previous, current))
        previous = current
    return correlations


def positions_of(order: Order, epoch: int, promoters: int) -> npt.NDArray[np.float64]:
    """Compute the position of each promoter in an epoch, from 0 to 1: (promoters,)."""
    positions = np.empty(promoters)
    positions[order(epoch)] = np.arange(promoters) / promoters
    return positions


def correlate(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    """Compute Pearson's r of two vectors of equal length."""
    return float(np.corrcoef(a, b)[0, 1])


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--promoters", type=int, default=6_510_079, help="default: 6510079")
    options.add_argument("--plot", type=Path, help=".svg file to write; default: no plot")
    args = options.parse_args()
    orders = stream_order(args.promoters), permutation_order(args.promoters)
    labels = np.random.default_rng(0).normal(10, 2, args.promoters)  # in the random order of the dataset
    print(f"Correlation, mean and standard deviation over {EPOCHS} epochs of {args.promoters:,} promoters.\n")
    print("| | the stream | a true permutation |\n|---|--:|--:|")
    for name, measured in (
        ("labels of consecutive promoters", [correlate_neighbours(order, labels) for order in orders]),
        (
            "labels of consecutive promoters, if the dataset were sorted by label",
            [correlate_neighbours(order, np.sort(labels)) for order in orders],
        ),
        ("a promoter's positions in two epochs", [correlate_positions(order, args.promoters) for order in orders]),
    ):
        print(f"| {name} | " + " | ".join(f"{np.mean(m):+.4f} ± {np.std(m):.4f}" for m in measured) + " |")
    if args.plot:
        plot(orders, args.promoters, args.plot)


def plot(orders: tuple[Order, Order], promoters: int, path: Path) -> None:
    """Plot the positions of 4,000 promoters in one epoch against those in the next."""
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt

    mpl.rcParams.update({"svg.hashsalt": "shuffle", "svg.fonttype": "none"})
    figure, axes = plt.subplots(1, 2, figsize=(8, 4), layout="constrained", sharey=True)
    shown = np.random.default_rng(0).choice(promoters, 4000, replace=False)
    for axis, order, title in zip(axes, orders, ("the stream", "a true permutation"), strict=True):
        first, second = (positions_of(order, epoch, promoters)[shown] for epoch in range(2))
        axis.scatter(first, second, s=1, color="#0072b2", rasterized=True)
        axis.set(title=title, xlabel="place in epoch 0", aspect="equal")
    axes[0].set_ylabel("place in epoch 1")
    figure.suptitle(f"{promoters:,} promoters in windows of {WINDOW_RECORDS * RECORD:,}")
    figure.savefig(path, metadata={"Date": None}, dpi=150)


if __name__ == "__main__":
    main()
