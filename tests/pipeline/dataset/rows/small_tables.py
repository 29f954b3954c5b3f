"""Small tables of random promoters with further columns, and builds of them."""

import random

from pipeline.dataset.database import open_dataset
from tests.conftest import small_config

BARE = ("assay.left_adapter=", "assay.right_adapter=", "assay.flank=0", "assay.min_expression=-99")


def sequences(count, seed=0):
    rng = random.Random(seed)
    return ["".join(rng.choices("ACGT", k=30)) for _ in range(count)]


def write_table(path, header, rows, delimiter="\t"):
    path.write_text("".join(delimiter.join(map(str, row)) + "\n" for row in [header, *rows]))
    return str(path)


def bare_config(folder, *overrides):
    return small_config(folder, *BARE, *overrides)


def select(config, sql):
    with open_dataset(config.dataset.path) as connection:
        return connection.execute(sql).fetchall()
