"""Corrupt or deleted models and checkpoints: the final weights must equal those of an uninterrupted run."""

import json
import re
import shutil

import pytest

from model.artifacts.manifest import find_corruption
from model.bert.build import load_regression_model
from pipeline.errors import UserError
from tests.model.runs.trainer import (
    DAMAGE,
    PRODUCTS,
    KilledError,
    best_checkpoint,
    cut,
    flip,
    kill,
    make_unfinished,
    run_suggested_fix,
    weights,
)

pytestmark = pytest.mark.processes


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_corrupt_models_of_a_finished_run_are_restored(trainer, finished, run, capsys, stage):
    folder = run / PRODUCTS[stage]
    files = {path.name: path.read_bytes() for path in (best_checkpoint(run, stage) / "huggingface").iterdir()}
    for problem, damage in DAMAGE.items():
        damage(folder)
        assert "nothing was trained" in trainer.train()["note"]
        assert re.fullmatch(rf"{folder}: {problem}.*; restored from .*/huggingface\n", capsys.readouterr().err)
        assert find_corruption(folder) == ""
        assert {p.name: p.read_bytes() for p in folder.iterdir() if p.name != "manifest.json"} == files
    assert weights(run, stage) == weights(finished, stage)
    trainer.train()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_suggested_fix_trains_lost_models_again(trainer, finished, run, capsys, stage):
    flip(run / PRODUCTS[stage] / "model.safetensors")
    flip(best_checkpoint(run, stage) / "huggingface" / "model.safetensors")
    if stage == "pretrain":  # the scores of the run do not depend on it
        assert trainer.train()["scores"]
        assert "cannot be restored" in capsys.readouterr().err
    with pytest.raises(UserError, match="has other bytes than its manifest records, and it cannot be") as error:
        trainer.train(stages=stage)
    run_suggested_fix(error)
    trainer.train(stages=stage)
    assert weights(run, stage) == weights(finished, stage)
    summary = trainer.train()
    assert weights(run) == weights(finished)
    assert summary["scores"] == json.loads((finished / "summary.json").read_text())["scores"]


def test_fine_tuning_starts_from_restored_weights_without_old_checkpoints(
    trainer, finished, pretrained_run, before_step, capsys
):
    flip(pretrained_run / "pretrained" / "model.safetensors")
    trainer.train(stages="pretrain")
    assert "restored from" in capsys.readouterr().err
    assert weights(pretrained_run, "pretrain") == weights(finished, "pretrain")
    shutil.rmtree(pretrained_run / "pretrained")

    before_step(15, kill)
    with pytest.raises(KilledError):
        trainer.train(stages="finetune")
    assert "pretrained: the folder is missing; restored from" in capsys.readouterr().err
    before_step(0, kill)
    for checkpoint in (pretrained_run / "checkpoints" / "pretrain").glob("step-*"):
        flip(checkpoint / "mp_rank_00_model_states.pt")
    trainer.train()
    assert "pretrain: already completed at step 9" in capsys.readouterr().err
    assert weights(pretrained_run) == weights(finished)


def test_fine_tuning_without_pretrained_weights_suggests_a_fix(trainer, finished, pretrained_run):
    with pytest.raises(UserError, match="run --stage pretrain first"):
        trainer.train("run.name=new", stages="finetune")
    shutil.rmtree(pretrained_run / "pretrained")
    for checkpoint in (pretrained_run / "checkpoints" / "pretrain").glob("step-*"):
        cut(checkpoint / "huggingface" / "model.safetensors")
    with pytest.raises(UserError, match="run --stage pretrain first") as error:
        trainer.train(stages="finetune")
    run_suggested_fix(error)
    trainer.train(stages="pretrain")
    trainer.train(stages="finetune")
    assert weights(pretrained_run) == weights(finished)


def test_model_deleted_during_training_is_restored(trainer, finished, run, before_step, capsys):
    make_unfinished(run)
    before_step(35, lambda: shutil.rmtree(run / "model"))
    trainer.train()
    assert "finetune: runs/paper/model: the folder is missing; restored from" in capsys.readouterr().err
    assert weights(run) == weights(finished)
    make_unfinished(run)
    before_step(35, lambda: [shutil.rmtree(run / "model"), shutil.rmtree(checkpoint)])
    best = json.loads((finished / "summary.json").read_text())["training"]["finetune"]["best_step"]
    assert best < 35  # otherwise it would be written again after its deletion
    checkpoint = run / "checkpoints" / "finetune" / f"step-{best:09d}"
    assert checkpoint.exists()
    with pytest.raises(UserError, match="run the same command to train it again") as error:
        trainer.train()
    before_step(0, lambda: None)
    run_suggested_fix(error)
    trainer.train()
    assert weights(run) == weights(finished)


def test_corrupt_model_is_refused(run):
    load_regression_model(run / "model")
    flip(run / "model" / "model.safetensors")
    with pytest.raises(UserError, match=r"the model is corrupt \(model.safetensors has other bytes"):
        load_regression_model(run / "model")
    (run / "model" / "manifest.json").unlink()  # as the message suggests for a model that was changed on purpose
    load_regression_model(run / "model")
