"""A small model and valid promoters of its assay; no dataset is built."""

import random
from pathlib import Path

import pytest

from tests.conftest import small_config
from tests.model.saved_model import save_model


@pytest.fixture(scope="package")
def assay():
    return small_config(Path()).assay


@pytest.fixture(scope="package")
def model(assay, tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("model"), assay)


@pytest.fixture(scope="package")
def rows(assay):
    draw = random.Random(1)
    inserts = ["".join(draw.choices("ACGT", k=draw.randint(60, 80))) for _ in range(100)]
    return [f"{assay.left_adapter}{insert}{assay.right_adapter}" for insert in inserts]
