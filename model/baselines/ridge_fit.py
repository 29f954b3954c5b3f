"""Fit ridge regression to the labels of a dataset: one model per label, each with its own regularization strength."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import psutil

from model.baselines.fit import HELD_OUT, BaselineFit, HeldOutRows, OnProgress
from model.baselines.ridge import ALPHAS, Counts, Labels, SplitCounts, read_split, select_ridge
from pipeline.dataset.database import dataset_info, open_dataset, rows_of
from pipeline.errors import UserError

BYTES_PER_BASE = 100
"""Peak memory of the counts per base of an insert: 95 bytes were measured with 40,000 inserts of 80 bases."""


def fit_dataset(dataset: Path, on_progress: OnProgress) -> BaselineFit:
    """Fit all labels of a dataset and predict its held-out splits.

    on_progress: called before each step with its number. Raises UserError if the counts would not fit into memory.
    """
    _check_memory(dataset)
    with open_dataset(dataset) as connection:
        labels = dataset_info(connection).labels
    total, done = 1 + len(HELD_OUT) + len(ALPHAS) * len(labels), 0

    def step(name: str) -> None:
        nonlocal done
        on_progress(done, total, name)
        done += 1

    parts = {}
    for split in ("train", *HELD_OUT):
        step(f"counting k-mers of split {split}")
        parts[split] = read_split(dataset, split)
    alphas, columns = [], []
    for place in range(len(labels)):
        train, valid = (_with_label(parts[split], place) for split in ("train", "valid"))
        alpha, model = select_ridge(train, valid, step)
        alphas.append(alpha)
        columns.append({split: model.predict(parts[split].counts) for split in HELD_OUT})
    on_progress(total, total, "")
    held_out = {
        split: HeldOutRows(
            parts[split].id, _values(np.stack([column[split] for column in columns], 1)), _values(parts[split].labels)
        )
        for split in HELD_OUT
        if len(parts[split].id)
    }
    mean, sd = _compute_scales(parts["train"].labels)
    if len(labels) == 1:
        return BaselineFit(held_out, {}, [], {"alpha": alphas[0]}, mean[0], sd[0])
    return BaselineFit(held_out, {}, [], {"alpha": dict(zip(labels, alphas, strict=True))}, mean, sd)


def _with_label(part: SplitCounts, place: int) -> tuple[Counts, Labels]:
    """Select the rows that have a label, with its values (rows,)."""
    present = np.isfinite(part.labels[:, place])
    if present.all():
        return part.counts, part.labels[:, place]
    return part.counts[present], part.labels[present, place]


def _compute_scales(labels: Labels) -> tuple[list[float], list[float]]:
    """Compute mean and standard deviation of each label; without values 0 and 1, as in the index of shards."""
    columns = [column[np.isfinite(column)] for column in labels.T]
    means = [float(column.mean()) if len(column) else 0.0 for column in columns]
    return means, [float(column.std()) if len(column) else 1.0 for column in columns]


def _values(columns: Labels) -> npt.NDArray[np.float32]:
    """Convert (rows, labels) to float32, (rows,) for one label."""
    values = columns.astype(np.float32)
    return values[:, 0] if values.shape[1] == 1 else values


def _check_memory(dataset: Path) -> None:
    with open_dataset(dataset) as connection:
        ((bases,),) = rows_of(connection, "select sum(length(insert_of(sequence))) from finetune")
    needed, available = BYTES_PER_BASE * int(bases or 0), psutil.virtual_memory().available
    if needed > available:
        raise UserError(
            f"{dataset}: the k-mer counts do not fit into memory; expected about {needed / 1e9:.1f} GB, got "
            f"{available / 1e9:.1f} GB; fix: a dataset of fewer rows (dataset.finetune_train=500000), or promoter-bert "
            "baseline cnn with the same --config and overrides"
        )
