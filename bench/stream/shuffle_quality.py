"""Quality of the shuffle of an epoch, beside a permutation of all promoters.

Two defects are measured: the labels of consecutive promoters may correlate, and a promoter may come at about the same
place in two epochs. The first is 0 for the stream because the dataset itself is in random order. If it were sorted by
label, windows of some records would not be enough, as the second line shows. The second is 0 in the mean. Its spread
depends on the number of shards: only shards are permuted over the whole epoch, records among those read together.

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
"""Epoch -> the promoters' numbers in their order."""


def stream_order(promoters: int) -> Order:
    """Make the order of the stream."""
    records = [RECORD] * (promoters // RECORD) + ([promoters % RECORD] if promoters % RECORD else [])
    shards = [records[at : at + RECORDS_PER_SHARD] for at in range(0, len(records), RECORDS_PER_SHARD)]

    def order(epoch: int) -> npt.NDArray[np.int64]:
        found = make_epoch_order(shards, seed=0, epoch=epoch)
        windows = []
        for number in range(found.windows):
            members = [np.arange(r * RECORD, r * RECORD + records[r]) for r in found.window_records(number)]
            windows.append(np.concatenate(members)[found.window_rows(number)])
        return np.concatenate(windows)

    return order


def permutation_order(promoters: int) -> Order:
    """Make a permutation of all promoters."""
    return lambda epoch: np.random.default_rng([1, epoch]).permutation(promoters)


def neighbours(order: Order, labels: npt.NDArray[np.float64]) -> list[float]:
    """Correlate the labels of consecutive promoters, in each epoch."""
    seen = [labels[order(epoch)] for epoch in range(EPOCHS)]
    return [correlation(one[:-1], one[1:]) for one in seen]


def places(order: Order, promoters: int) -> list[float]:
    """Correlate a promoter's places in each two consecutive epochs."""
    found, before = [], place_of(order, 0, promoters)
    for epoch in range(1, EPOCHS + 1):
        now = place_of(order, epoch, promoters)
        found.append(correlation(before, now))
        before = now
    return found


def place_of(order: Order, epoch: int, promoters: int) -> npt.NDArray[np.float64]:
    """Compute the place of each promoter in an epoch, from 0 to 1."""
    place = np.empty(promoters)
    place[order(epoch)] = np.arange(promoters) / promoters
    return place


def correlation(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    """Compute Pearson's correlation."""
    return float(np.corrcoef(a, b)[0, 1])


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--promoters", type=int, default=6_510_079)
    options.add_argument("--plot", type=Path)
    args = options.parse_args()
    orders = stream_order(args.promoters), permutation_order(args.promoters)
    labels = np.random.default_rng(0).normal(10, 2, args.promoters)  # in the random order of the dataset
    print(f"Correlation, mean and spread over {EPOCHS} epochs of {args.promoters:,} promoters.\n")
    print("| | the stream | a true permutation |\n|---|--:|--:|")
    for name, measured in (
        ("labels of neighbours", [neighbours(order, labels) for order in orders]),
        ("labels of neighbours, if the dataset were sorted by label", [neighbours(o, np.sort(labels)) for o in orders]),
        ("a promoter's places in two epochs", [places(order, args.promoters) for order in orders]),
    ):
        print(f"| {name} | " + " | ".join(f"{np.mean(m):+.4f} ± {np.std(m):.4f}" for m in measured) + " |")
    if args.plot:
        plot(orders, args.promoters, args.plot)


def plot(orders: tuple[Order, Order], promoters: int, path: Path) -> None:
    """Plot the places of 4,000 promoters in one epoch against the next."""
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt

    mpl.rcParams.update({"svg.hashsalt": "shuffle", "svg.fonttype": "none"})
    figure, axes = plt.subplots(1, 2, figsize=(8, 4), layout="constrained", sharey=True)
    shown = np.random.default_rng(0).choice(promoters, 4000, replace=False)
    for axis, order, title in zip(axes, orders, ("the stream", "a true permutation"), strict=True):
        first, second = (place_of(order, epoch, promoters)[shown] for epoch in range(2))
        axis.scatter(first, second, s=1, color="#0072b2", rasterized=True)
        axis.set(title=title, xlabel="place in epoch 0", aspect="equal")
    axes[0].set_ylabel("place in epoch 1")
    figure.suptitle(f"{promoters:,} promoters in windows of {WINDOW_RECORDS * RECORD:,}")
    figure.savefig(path, metadata={"Date": None}, dpi=150)


if __name__ == "__main__":
    main()
