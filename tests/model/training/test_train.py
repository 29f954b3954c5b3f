"""`train` as a Python function, in one process and without a launcher."""

import json
import os
import shutil

import pytest

from model.runs.metrics_file import read_metrics
from model.training.train import train
from pipeline.errors import UserError
from tests.conftest import small_config

pytestmark = pytest.mark.processes


def test_runs_are_trained_and_recognized_as_finished_in_one_process(made, tmp_path):
    dataset = shutil.copy(made.config.dataset.path, tmp_path)
    overrides = (f"dataset.path={dataset}", f"shards.path={made.config.shards.path}", "finetune.start=scratch")
    config = small_config(tmp_path, *overrides, "finetune.max_epochs=0.5")
    environment, texts = dict(os.environ), []
    summary = train(config, emit=texts.append)
    assert os.environ == environment
    assert [text.split()[0] for text in texts] == ["run", "matmul", "finetune"]
    written = json.loads((config.run.directory / "summary.json").read_text())
    assert summary == written
    assert summary["training"]["finetune"]["steps"] == 19
    readings = [line for line in read_metrics(config.run.directory / "metrics.jsonl") if "loss" in line]
    assert all(line["promoters_per_second"] > 0 and line["flop_utilisation"] > 0 for line in readings)
    second = small_config(tmp_path, *overrides, "finetune.max_epochs=0.5", "run.name=second")
    assert train(second)["scores"] == written["scores"]
    first_weights, second_weights = (
        (run.directory / "model" / "model.safetensors").read_bytes() for run in (config.run, second.run)
    )
    assert second_weights == first_weights
    again = train(config, emit=texts.append)
    assert [text.split()[0] for text in texts[3:]] == ["note", "finetune"]
    assert again.pop("note").endswith("nothing was trained")
    assert again == written
    with pytest.raises(UserError, match="--stage pretrain: pretraining would have no effect"):
        train(small_config(tmp_path, *overrides[:2], "finetune.pretrained=elsewhere"), "pretrain")
