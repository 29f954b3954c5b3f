"""Fixtures of several tests: generated rows as dataset and shards, and the challenge's real rows if available."""

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from model.config import Config, load_config
from pipeline.dataset.build import build_dataset
from pipeline.dataset.synthetic.generate import generate
from pipeline.shards.location import shard_folder
from pipeline.shards.write import write_shards

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # So has a shell what it runs in the background, with all that the tests start; some of them need Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Two files of tests run side by side, each with its trainings: threads that wait spin, and would slow each other down.
# And the order of a sum over threads shows in the last bits.
os.environ.setdefault("OMP_NUM_THREADS", "1")

HANDLED_SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
ROOT = Path(__file__).resolve().parent.parent
SMALL = [
    "assay.flank=5",
    "dataset.pretrain_valid=0.3",
    "dataset.finetune_valid=0.1",
    "dataset.finetune_test=0.1",
    "shards.record_promoters=100",
    "shards.shard_megabytes=0.05",
    "model.hidden=16",
    "model.layers=1",
    "model.heads=2",
    "model.intermediate=32",
    "model.dropout=0.1",
    "pretrain.global_batch=32",
    "pretrain.learning_rate=1e-3",
    "pretrain.max_epochs=1",
    "pretrain.evaluate_every=0.5",
    "finetune.global_batch=32",
    "finetune.learning_rate=1e-3",
    "finetune.warm_up=15",
    "finetune.max_epochs=1",
    "finetune.evaluate_every=0.25",
]


def small_config(folder: Path, *overrides: str) -> Config:
    """Return a configuration whose files are all in one folder."""
    places = [f"dataset.path={folder}/dataset.duckdb", f"shards.path={folder}/shards", f"run.path={folder}/runs"]
    return load_config(ROOT / "config.yaml", [*SMALL, *places, *overrides])


@pytest.fixture(autouse=True)
def handlers_stay() -> Iterator[None]:
    """Fail a test that leaves a handler of signals behind: later tests in this process would lose Ctrl-C."""
    earlier = {number: signal.getsignal(number) for number in HANDLED_SIGNALS}
    yield
    assert {number: signal.getsignal(number) for number in HANDLED_SIGNALS} == earlier


@dataclass(frozen=True)
class Made:
    """1,500 generated promoters, built and sharded. Tests only read it."""

    rows: Path
    config: Config
    shards: Path


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("made")
    rows = folder / "rows.tsv"
    generate(rows, 1500, seed=1)
    config = small_config(folder)
    build_dataset([str(rows)], config)
    write_shards(config)
    return Made(rows, config, shard_folder(config))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real and simulated rows; it is no part of the project."""
    folder = Path(os.environ.get("PROMOTER_BERT_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "dream_train_7k.tsv").exists():
        pytest.skip("real rows are not here (set PROMOTER_BERT_DATA to the folder that holds dream_train_7k.tsv)")
    return folder
