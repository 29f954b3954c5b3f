"""Queries of predictions on a dataset of several labels, and on one that an earlier version built."""

import io
from contextlib import redirect_stdout

import numpy as np
import pyarrow as pa
import pytest

from pipeline.dataset.build import build_dataset
from pipeline.dataset.database import open_dataset
from pipeline.dataset.query import answer, run_query
from pipeline.dataset.results import replace_rows
from tests.conftest import ROOT
from tests.pipeline.dataset.toy_dataset import GOOD, toy_config, write
from tests.several_labels import LABELS, make_two_labels

QUERIES = ("calibration", "predicted_and_measured", "residuals_by_expression", "residuals_by_gc", "residuals_by_length")


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A dataset with predictions of two labels: the measured value plus 1 for the first, minus 2 for the second."""
    two = make_two_labels(tmp_path_factory.mktemp("two"), 200)
    with open_dataset(two.config.dataset.path) as connection:
        columns = ", ".join(f'"{name}"' for name in LABELS)
        rows = connection.execute(f"select id, {columns} from promoters order by id").fetchall()
    values = np.array(rows, float)
    predictions = pa.table(
        {
            "id": np.repeat(values[:, 0].astype(int), 2),
            "split": ["test"] * 2 * len(values),
            "prediction": np.add(np.nan_to_num(values[:, 1:], nan=5.0), [1, -2]).ravel(),
            "label": LABELS * len(values),
            "run": ["two"] * 2 * len(values),
        }
    )
    replace_rows(two.config.dataset.path, "run", "two", {"predictions": predictions})
    return two.config.dataset.path, values


def test_every_query_groups_by_label(published):
    dataset, values = published
    counts = dict(zip(LABELS, np.isfinite(values[:, 1:]).sum(0).tolist(), strict=True))
    with open_dataset(dataset) as connection:
        for name in QUERIES:
            columns = answer(connection, name)
            for label, rows in counts.items():
                at = [place for place, other in enumerate(columns["split"]) if other == f"test, {label}"]
                assert sum(columns["promoters"][place] for place in at) == rows, name
                for place in at if "mean_residual" in columns else []:
                    assert columns["mean_residual"][place] == pytest.approx({"A score": -1, "B": 2}[label]), name
        worst = answer(connection, "worst_predictions")
        assert set(worst["split"]) == {"test, B"}
        assert worst["residual"] == pytest.approx([2] * 20)


def test_queries_of_a_dataset_of_an_earlier_version(tmp_path):
    """It has neither the column `label` nor the view `measurements`."""
    config = toy_config(tmp_path)
    build_dataset([write(tmp_path / "toy.tsv", GOOD)], config)
    with open_dataset(config.dataset.path, read_only=False) as connection:
        connection.execute("drop view measurements; alter table predictions drop column label")
        connection.execute("insert into predictions select 'a', id, 'test', expression + 1 from promoters")
    with redirect_stdout(io.TextIOWrapper(io.BytesIO())) as printed:
        assert run_query(config.dataset.path, str(ROOT / "sql/queries/worst_predictions.sql"), "csv") == 12
        printed.flush()
        head, *lines = printed.buffer.getvalue().decode().splitlines()
    assert head.split(",")[-1] == '"residual"'
    assert {(line.split(",")[1], line.split(",")[-1]) for line in lines} == {('"test"', "-1")}
