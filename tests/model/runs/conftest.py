"""Runs that are trained once for all tests of this folder."""

import os
import shutil
from contextlib import redirect_stderr

import pytest

from model.distributed.process_group import join_group
from model.training.engine import StageEngine
from tests.model.runs.trainer import RUN, Trainer


@pytest.fixture(scope="package")
def trainer(made, tmp_path_factory):
    dataset = tmp_path_factory.mktemp("trainer") / "dataset.duckdb"
    shutil.copy(made.config.dataset.path, dataset)
    environment = dict(os.environ)
    try:
        with join_group(None) as world:
            yield Trainer(made, dataset, world)
    finally:
        os.environ.clear()
        os.environ.update(environment)


@pytest.fixture(scope="package")
def finished(trainer, tmp_path_factory):
    """The directory of an uninterrupted run; its messages are in the file `stderr` of the working directory."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch, (folder / "stderr").open("w") as file, redirect_stderr(file):
        patch.chdir(folder)
        trainer.train()
    return folder / RUN


@pytest.fixture(scope="package")
def only_pretrained(trainer, tmp_path_factory):
    """The directory of a run after --stage pretrain."""
    folder = tmp_path_factory.mktemp("only-pretrained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        trainer.train(stages="pretrain")
    return folder / RUN


@pytest.fixture
def run(finished, tmp_path, monkeypatch):
    """A copy of the finished run in the working directory, which a test may change."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(finished, RUN)
    return RUN


@pytest.fixture
def pretrained_run(only_pretrained, tmp_path, monkeypatch):
    """A copy of the pretrained run in the working directory, which a test may change."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(only_pretrained, RUN)
    return RUN


@pytest.fixture
def empty(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return RUN


@pytest.fixture
def before_step(monkeypatch):
    """Call a function before a step of fine-tuning, counted from 1."""
    train_step = StageEngine.train_step

    def arrange(number, action):
        def patched(engine, step, sums):
            if engine.stage == "finetune" and step.number + 1 == number:
                action()
            train_step(engine, step, sums)

        monkeypatch.setattr(StageEngine, "train_step", patched)

    return arrange
