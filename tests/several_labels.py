"""A dataset of two labels with missing values, and its shards: one depends on G and C, the other on A."""

import numpy as np

from pipeline.dataset.build import build_dataset
from pipeline.dataset.database import open_dataset, statement
from pipeline.dataset.results import define_measurements
from pipeline.shards.location import shard_folder
from pipeline.shards.write import write_shards
from tests.conftest import Made, small_config

LABELS = ["A score", "B"]
"""Names of the two labels; one needs quotes in SQL."""


def planted_rows(rows, seed=0):
    """Draw inserts of 20 random bases and their two labels (rows, 2), from the numbers of G and C, and of A.

    A third of the values are missing, but at least one per row is present.
    """
    rng = np.random.default_rng(seed)
    inserts = ["".join(rng.choice(list("ACGT"), 20)) for _ in range(rows)]
    labels = np.array([[4 + 0.5 * sum(map(insert.count, "GC")), 2 + insert.count("A")] for insert in inserts])
    labels += rng.normal(0, 0.1, labels.shape)
    for row, place in enumerate(rng.integers(0, 3, rows)):
        if place < 2:
            labels[row, place] = np.nan
    return inserts, labels


def make_two_labels(folder, rows=400, *overrides):
    """Build the dataset and the shards in a folder."""
    inserts, labels = planted_rows(rows)
    config = small_config(
        folder, "assay.left_adapter=", "assay.right_adapter=", "assay.min_insert=0", "assay.flank=0", *overrides
    )
    table = folder / "rows.tsv"
    cut = np.where(np.isnan(labels[:, 0]), labels[:, 1], labels[:, 0])
    table.write_text("".join(f"{insert}\t{label}\n" for insert, label in zip(inserts, cut, strict=True)))
    build_dataset([str(table)], config)
    add_labels(config.dataset.path, dict(zip(inserts, labels.tolist(), strict=True)))
    write_shards(config)
    return Made(table, config, shard_folder(config))


def add_labels(dataset, labels):
    """Add the label columns to a built dataset. labels: values by sequence."""
    with open_dataset(dataset, read_only=False) as connection:
        for place, name in enumerate(LABELS):
            connection.execute(f'alter table promoters add column "{name}" double')
            for sequence, values in labels.items():
                if not np.isnan(values[place]):
                    update = f'update promoters set "{name}" = ? where sequence = ?'
                    connection.execute(update, [values[place], sequence])
        connection.execute("update dataset set labels = ?", [LABELS])
        columns = ", ".join(f'"{name}"' for name in LABELS)
        connection.execute(statement("07_finetune.sql").replace("    expression,\n", f"    expression, {columns},\n"))
        define_measurements(connection, LABELS)
