"""Runs that start from the weights of another run."""

import hashlib
import shutil
from dataclasses import replace

import pyarrow.parquet
import pytest

from model.artifacts.manifest import put_manifest, read_manifest
from model.reporting.settings_section import settings_section
from model.runs.directory import describe_held_out_difference
from model.runs.read import read_run
from pipeline.dataset.build import build_dataset
from pipeline.errors import UserError
from pipeline.shards.write import write_shards
from tests.conftest import small_config
from tests.model.runs.trainer import KilledError, flip, kill, weights

pytestmark = pytest.mark.processes


@pytest.fixture
def from_another(trainer, tmp_path, run):
    """Overrides of a run on 300 training rows that starts from the frozen encoder of another run."""
    few = ("dataset.finetune_train=300", f"dataset.path={tmp_path}/fewer.duckdb", f"shards.path={tmp_path}/shards")
    config = small_config(tmp_path, *few, "shards.workers=1")
    build_dataset([str(trainer.made.rows)], config)
    write_shards(config)
    return (*few, "finetune.start=frozen", f"finetune.pretrained={run}/pretrained")


def test_fine_tuning_from_the_encoder_of_another_run(trainer, finished, from_another, run, before_step, capsys):
    whole, other = run.with_name("whole"), run / "pretrained"
    summary = trainer.train(*from_another, "run.name=whole")
    assert summary["training"]["finetune"]["steps"] == 10  # 300 rows, 32 per step
    ids = [pyarrow.parquet.read_table(folder / "predictions.parquet")["id"] for folder in (whole, finished)]
    assert ids[0] == ids[1]
    sha256 = hashlib.sha256((other / "model.safetensors").read_bytes()).hexdigest()
    card = (whole / "model" / "README.md").read_text()
    assert f"model of another run, `{other}` (sha256 `{sha256}`), and was fine-tuned" in card
    assert "| finetune/train | 300 |" in card
    assert f"{other} (sha256 {sha256[:16]}), encoder frozen" in str(settings_section(read_run(whole)))
    assert "may have been trained on" not in capsys.readouterr().err

    for step in (1, 5):  # the first checkpoint is at step 2
        before_step(step, kill)
        with pytest.raises(KilledError):
            trainer.train(*from_another, f"run.name=killed-{step}")
    before_step(0, kill)
    flip(other / "model.safetensors")
    (other / "manifest.json").unlink()
    with pytest.raises(UserError, match="the weights in runs/paper/pretrained have changed since this run was started"):
        trainer.train(*from_another, "run.name=killed-1")
    shutil.rmtree(other)
    trainer.train(*from_another, "run.name=killed-5")
    assert weights(run.with_name("killed-5")) == weights(whole)
    assert "nothing was trained" in trainer.train(*from_another, "run.name=whole")["note"]


def test_other_run_must_have_finished_pretraining_on_the_same_split(trainer, run):
    """Otherwise no run directory is created, or a note reports the difference."""
    other, override = run / "pretrained", f"finetune.pretrained={run}/pretrained"
    with pytest.raises(UserError, match="--stage pretrain: pretraining would have no effect"):
        trainer.train("run.name=new", override, stages="pretrain")
    manifest = read_manifest(other)
    put_manifest(other, replace(manifest, progress=replace(manifest.progress, ended=False)))
    with pytest.raises(UserError, match="the pretraining of runs/paper/pretrained has not ended"):
        trainer.train("run.name=new", override)
    assert not run.with_name("new").exists()
    config = trainer.made.config
    for changes, expected in (
        ({"finetune_train": 300.0}, ""),
        ({"group_overlap": 40}, "(dataset.group_overlap 0, here 40)"),
        ({"seed": 5, "finetune_test": 0.2}, "(dataset.seed 0, here 5; dataset.finetune_test 0.1, here 0.2)"),
    ):
        dataset = config.dataset.model_copy(update=changes)
        note = describe_held_out_difference(other, config.model_copy(update={"dataset": dataset}))
        assert bool(note) == bool(expected)
        assert note.endswith(expected)
    assert describe_held_out_difference(run, config) == ""  # its parent has no run.json
