"""A dataset of two labels with missing values, and its shards: one depends on G and C, the other on A."""

import numpy as np

from pipeline.dataset.build import build_dataset
from pipeline.shards.location import shard_folder
from pipeline.shards.write import write_shards
from tests.conftest import Made, small_config

LABELS = ["A score", "B"]
"""Names of the two labels; the first needs quotes in SQL."""


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
    """Build the dataset and the shards in a folder, and write the rows as a table with a header line."""
    inserts, labels = planted_rows(rows)
    names = f"dataset.labels=[{', '.join(LABELS)}]"
    bare = ("assay.left_adapter=", "assay.right_adapter=", "assay.flank=0")
    config = small_config(folder, *bare, names, *overrides)
    cells = [["" if np.isnan(value) else str(value) for value in values] for values in labels]
    lines = ["\t".join(("sequence", *LABELS)), *("\t".join(row) for row in zip(inserts, *zip(*cells, strict=True), strict=True))]
    table = folder / "rows.tsv"
    table.write_text("\n".join(lines) + "\n")
    build_dataset([str(table)], config)
    write_shards(config)
    return Made(table, config, shard_folder(config))
