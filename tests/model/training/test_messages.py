"""Messages of a training before it begins."""

import random

from model.training.messages import find_constant_labels
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
