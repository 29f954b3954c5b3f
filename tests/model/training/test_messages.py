"""Messages of a training before it begins."""

import random

from model.training.messages import describe_rate, find_constant_labels
from pipeline.dataset.build import build_dataset
from pipeline.shards.index import read_index
from pipeline.shards.write import write_shards
from tests.conftest import small_config
from tests.pipeline.dataset.toy_dataset import L, R, write


def test_constant_labels_are_recognised_in_the_index(tmp_path):
    bases = random.Random(0)
    inserts = ["".join(bases.choices("ACGT", k=30)) for _ in range(60)]
    for name, labels in (("constant", [1.5] * 60), ("varied", [1.5] * 30 + [2.5] * 30)):
        rows = "".join(f"{L}{insert}{R}\t{label}\n" for insert, label in zip(inserts, labels, strict=True))
        config = small_config(tmp_path / name)
        build_dataset([write(tmp_path / f"{name}.tsv", rows)], config)
        written = write_shards(config)
        assert bool(find_constant_labels(read_index(written.folder))) == (name == "constant")


def test_matmul_rate_is_shown_beside_the_nominal_rate():
    assert "700 TFLOP/s" in describe_rate(7e14, None)
    assert "71% of the nominal 989" in describe_rate(7e14, 989e12)
