"""Ctrl-C during the two operations of a build that must be atomic."""

import signal
from pathlib import Path

import pytest

from pipeline.dataset import workspace as module
from pipeline.dataset.build import build_dataset
from pipeline.io.atomic import replace_folder
from tests.pipeline.dataset.toy_dataset import GOOD, OUTPUTS, everything, toy_config, write

NAMES = {"toy.tsv", *OUTPUTS}


@pytest.fixture
def toy(tmp_path):
    """Build a dataset of a file of rows."""
    file = write(tmp_path / "toy.tsv", GOOD)
    build_dataset([file], toy_config(tmp_path))
    return file


def test_an_interrupt_while_the_dataset_is_replaced_waits_for_the_end(toy, tmp_path, monkeypatch):
    def interrupted(new, target):
        signal.raise_signal(signal.SIGINT)
        replace_folder(new, target)

    monkeypatch.setattr(module, "replace_folder", interrupted)
    config = toy_config(tmp_path, "dataset.seed=1")
    with pytest.raises(KeyboardInterrupt):
        build_dataset([toy], config)
    assert {path.name for path in tmp_path.iterdir()} == NAMES
    assert build_dataset([toy], config).reused


def test_an_interrupt_right_after_the_working_folder_is_made_removes_it(toy, tmp_path, monkeypatch):
    def interrupted(path, *arguments, mkdir=Path.mkdir, **more):
        mkdir(path, *arguments, **more)
        if path.name.endswith(".partial"):
            raise KeyboardInterrupt

    config = toy_config(tmp_path)
    before = everything(config.dataset.path)
    monkeypatch.setattr(Path, "mkdir", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build_dataset([toy], toy_config(tmp_path, "dataset.seed=1"))
    assert {path.name for path in tmp_path.iterdir()} == NAMES
    assert everything(config.dataset.path) == before
