"""Datasets are found by their key, among files that are missing or other datasets."""

import shutil
from pathlib import Path

import duckdb

from pipeline.dataset.database import dataset_info, open_dataset, open_dataset_of_key, rows_of


def test_the_first_dataset_with_the_key_is_opened(made, tmp_path):
    own, other = Path(made.config.dataset.path), tmp_path / "other.duckdb"
    shutil.copy(own, other)
    with duckdb.connect(str(other)) as connection:
        connection.execute("update dataset set key = 'other'")
    with open_dataset(own) as connection:
        key, rows = dataset_info(connection).key, rows_of(connection, "select count(*) from promoters")
    missing = tmp_path / "missing.duckdb"
    with open_dataset_of_key([missing, other, own], key) as connection:
        assert connection is not None
        assert rows_of(connection, "select count(*) from promoters") == rows
    for paths in ([missing, other], []):
        with open_dataset_of_key(paths, key) as connection:
            assert connection is None
