"""What happens to a run's own files while nobody looks: models, checkpoints and records damaged or deleted, killed
starts, full disks. All in this process, on one rank; the weights must always be those of the run that was let alone."""

import hashlib
import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow.parquet
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import AutoTokenizer

from model.artifacts.manifest import damage, put_manifest, read_manifest
from model.bert.build import load_regression_model
from model.distributed.process_group import World, joined
from model.reporting.run_sections import run_section
from model.runs.metric_log import read_metrics
from model.runs.other_run import held_out_otherwise
from model.runs.read import read_run
from model.training.checkpointing.reshard import convert
from model.training.ds_config import read_ds_config
from model.training.engine import StageEngine
from model.training.train import train_on_rank
from pipeline.dataset.build import build
from pipeline.errors import UserError
from pipeline.shards.write import write_shards
from tests.conftest import ROOT, Made, small_config

RUN = Path("runs/paper")
"""Pretraining has 9 steps, evaluated and saved at 4, 8 and 9; fine-tuning 38, at 10, 20, 30 and 38."""
PRODUCTS = {"pretrain": "pretrained", "finetune": "model"}


class KilledError(BaseException):
    """As by kill -9: nothing is tidied up."""


@dataclass(frozen=True)
class Trainer:
    """Trains in the working directory's `runs`, as train.py does."""

    made: Made
    dataset: Path
    world: World

    def train(self, *overrides, stages="both"):
        config = small_config(self.made.rows.parent, f"dataset.path={self.dataset}", "run.path=runs", *overrides)
        settings = read_ds_config(ROOT / "ds_config.json", cuda=False)
        return train_on_rank(config, settings, self.world, stages)


@pytest.fixture(scope="module")
def trainer(made, tmp_path_factory):
    dataset = tmp_path_factory.mktemp("trainer") / "dataset.duckdb"
    shutil.copy(made.config.dataset.path, dataset)
    environment = dict(os.environ)
    try:
        with joined(None) as world:
            yield Trainer(made, dataset, world)
    finally:
        os.environ.clear()
        os.environ.update(environment)


@pytest.fixture(scope="module")
def finished(trainer, tmp_path_factory):
    """The folder of a run that nothing happened to."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        trainer.train()
    return folder / RUN


@pytest.fixture
def run(finished, tmp_path, monkeypatch):
    """A copy of it to do things to, in the working directory."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(finished, RUN)
    return RUN


@pytest.fixture
def empty(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return RUN


@pytest.fixture
def before_step(monkeypatch):
    """Have something happen before a step of fine-tuning, counted from 1."""
    real = StageEngine.train_step

    def arrange(number, happens):
        def step(engine, given, sums):
            if engine.stage == "finetune" and given.number + 1 == number:
                happens()
            real(engine, given, sums)

        monkeypatch.setattr(StageEngine, "train_step", step)

    return arrange


def weights(run, stage="finetune"):
    return (run / PRODUCTS[stage] / "model.safetensors").read_bytes()


def cut(path):
    os.truncate(path, path.stat().st_size // 2)


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGE = {
    "model.safetensors has .* expected": lambda folder: cut(folder / "model.safetensors"),
    "model.safetensors has other bytes": lambda folder: flip(folder / "model.safetensors"),
    "config.json has 0 bytes": lambda folder: (folder / "config.json").write_text(""),
    "tokenizer.json is missing": lambda folder: (folder / "tokenizer.json").unlink(),
    "manifest.json is missing": lambda folder: (folder / "manifest.json").unlink(),
    "the folder is missing": shutil.rmtree,
}


def best_checkpoint(run, stage):
    summary = json.loads((run / "summary.json").read_text())
    return run / "checkpoints" / stage / f"step-{summary['training'][stage]['best_step']:09d}"


def type_what_it_says(error):
    """Run the command of an error message."""
    (command,) = re.findall(r"rm .*?(?=, then|\), and)", str(error.value))
    subprocess.run(["sh", "-c", command], check=True)


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_damaged_models_of_a_finished_run_are_made_again(trainer, finished, run, capsys, stage):
    folder = run / PRODUCTS[stage]
    files = {path.name: path.read_bytes() for path in (best_checkpoint(run, stage) / "huggingface").iterdir()}
    for found, do in DAMAGE.items():
        do(folder)
        assert "nothing was trained" in trainer.train()["note"]
        said = capsys.readouterr().err
        assert re.fullmatch(rf"{folder}: {found}.*; restored from .*/huggingface\n", said)
        assert damage(folder) == ""
        assert {p.name: p.read_bytes() for p in folder.iterdir() if p.name != "manifest.json"} == files
    assert weights(run, stage) == weights(finished, stage)
    trainer.train()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_what_is_lost_is_trained_again_by_what_the_error_says(trainer, finished, run, capsys, stage):
    flip(run / PRODUCTS[stage] / "model.safetensors")
    flip(best_checkpoint(run, stage) / "huggingface" / "model.safetensors")
    if stage == "pretrain":  # the run's scores do not hang on it
        assert trainer.train()["scores"]
        assert "cannot be restored" in capsys.readouterr().err
    with pytest.raises(UserError, match="has other bytes than were written, and it cannot be restored") as error:
        trainer.train(stages=stage)
    type_what_it_says(error)
    trainer.train(stages=stage)
    assert weights(run, stage) == weights(finished, stage)
    summary = trainer.train()
    assert weights(run) == weights(finished)
    assert summary["scores"] == json.loads((finished / "summary.json").read_text())["scores"]


def test_fine_tuning_starts_from_whole_weights_only_and_needs_no_old_checkpoints(
    trainer, finished, empty, before_step, capsys
):
    trainer.train(stages="pretrain")
    flip(empty / "pretrained" / "model.safetensors")
    trainer.train(stages="pretrain")
    assert "restored from" in capsys.readouterr().err
    assert weights(empty, "pretrain") == weights(finished, "pretrain")
    shutil.rmtree(empty / "pretrained")

    def killed():
        raise KilledError

    before_step(15, killed)
    with pytest.raises(KilledError):
        trainer.train(stages="finetune")
    assert "pretrained: the folder is missing; restored from" in capsys.readouterr().err
    before_step(0, killed)
    for checkpoint in (empty / "checkpoints" / "pretrain").glob("step-*"):
        flip(checkpoint / "mp_rank_00_model_states.pt")
    trainer.train()
    assert "pretrain: already completed at step 9" in capsys.readouterr().err
    assert weights(empty) == weights(finished)


def test_fine_tuning_without_weights_to_start_from_says_how_to_get_them(trainer, finished, empty):
    with pytest.raises(UserError, match="run --stage pretrain first"):
        trainer.train(stages="finetune")
    trainer.train(stages="pretrain")
    shutil.rmtree(empty / "pretrained")
    for checkpoint in (empty / "checkpoints" / "pretrain").glob("step-*"):
        cut(checkpoint / "huggingface" / "model.safetensors")
    with pytest.raises(UserError, match="run --stage pretrain first") as error:
        trainer.train(stages="finetune")
    type_what_it_says(error)
    trainer.train(stages="pretrain")
    trainer.train(stages="finetune")
    assert weights(empty) == weights(finished)


def unfinished(run):
    """As it was after the evaluation at step 30."""
    for name in ("summary.json", "predictions.parquet"):
        (run / name).unlink()
    checkpoints = run / "checkpoints" / "finetune"
    shutil.rmtree(checkpoints / "step-000000038")
    then = read_manifest(checkpoints / "step-000000030").standing
    put_manifest(run / "model", replace(read_manifest(run / "model"), standing=then))


def test_a_model_deleted_while_it_trains_is_there_in_the_end(trainer, finished, run, before_step, capsys):
    unfinished(run)
    before_step(35, lambda: shutil.rmtree(run / "model"))
    trainer.train()
    assert "finetune: runs/paper/model: the folder is missing; restored from" in capsys.readouterr().err
    assert weights(run) == weights(finished)
    unfinished(run)
    before_step(35, lambda: [shutil.rmtree(run / "model"), shutil.rmtree(checkpoint)])
    best = json.loads((finished / "summary.json").read_text())["training"]["finetune"]["best_step"]
    assert best < 35  # else it is written once more after its loss
    checkpoint = run / "checkpoints" / "finetune" / f"step-{best:09d}"
    assert checkpoint.exists()
    with pytest.raises(UserError, match="run the same command to train it again") as error:
        trainer.train()
    before_step(0, lambda: None)
    type_what_it_says(error)
    trainer.train()
    assert weights(run) == weights(finished)


def test_transformers_4_knows_the_tokenizers_class(run):
    """The name that 5 writes by itself, TokenizersBackend, cannot be loaded by 4."""
    for name in PRODUCTS.values():
        settings = json.loads((run / name / "tokenizer_config.json").read_text())
        assert settings["tokenizer_class"] == "PreTrainedTokenizerFast"
        assert AutoTokenizer.from_pretrained(run / name).mask_token == "[MASK]"


def test_compiling_is_said_before_it_takes_minutes(trainer, empty, capfd):
    """Without doing it: torch.compile leaves all as it is."""
    with torch._dynamo.config.patch(disable=True):
        trainer.train("model.compile=true", stages="pretrain")
    said = capfd.readouterr().err.splitlines()
    (place,) = [number for number, line in enumerate(said) if line.startswith("pretrain: compiling the training step")]
    assert not any("step" in line for line in said[:place])


def test_a_damaged_model_predicts_nothing(run):
    load_regression_model(run / "model")
    flip(run / "model" / "model.safetensors")
    with pytest.raises(UserError, match=r"not as train.py wrote it: model.safetensors has other bytes"):
        load_regression_model(run / "model")
    (run / "model" / "manifest.json").unlink()  # changed on purpose, as the message says
    load_regression_model(run / "model")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"config": 1, "shard_key": 2}'])
@pytest.mark.parametrize("name", ["run.json", "summary.json"])
def test_records_that_are_empty_or_damaged(trainer, finished, run, name, text):
    scores = json.loads((run / "summary.json").read_text())["scores"]
    (run / name).write_text(text)
    with pytest.raises(UserError, match=rf"runs/paper/{name} is (empty|damaged).*expected what this run") as error:
        trainer.train()
    if text == "{":
        type_what_it_says(error)
        assert trainer.train()["scores"] == scores
        assert json.loads((run / name).read_text())
        assert weights(run) == weights(finished)


def test_predictions_that_are_damaged_are_computed_again(trainer, run):
    before = (run / "predictions.parquet").read_bytes()
    cut(run / "predictions.parquet")
    with pytest.raises(UserError, match=r"predictions.parquet: the predictions cannot be read") as error:
        trainer.train()
    type_what_it_says(error)
    trainer.train()
    assert (run / "predictions.parquet").read_bytes() == before


def test_what_killed_starts_left_is_removed_and_nothing_else(trainer, run):
    for name in (".model.123.partial", ".pretrained.partial", ".model.old"):
        shutil.copytree(run / "model", run / name)
    (run / ".host-1.partial.summary.json").write_text("{")
    kept = (run / ".host-2.partial.mine.tsv", run / "notes.partial")
    for path in kept:
        path.write_text("a prediction that is being written, say")
    (run / "metrics.jsonl").open("ab").write(b"\xff\n5\n{}\n")
    trainer.train()
    hidden = {path.name for path in run.iterdir() if "partial" in path.name or path.name.endswith(".old")}
    assert hidden == {path.name for path in kept}


def test_tensorboard_shows_each_step_once(trainer, empty, before_step):
    """Numbers are read at step 20, where there is no checkpoint yet; the second start comes there, too."""

    def killed():
        raise KilledError

    once = "finetune.evaluate_every=1"
    before_step(25, killed)
    with pytest.raises(KilledError):
        trainer.train(once)
    before_step(0, killed)
    trainer.train(once)
    assert len(list((empty / "tensorboard" / "finetune").iterdir())) == 2
    for stage in PRODUCTS:
        shown = EventAccumulator(str(empty / "tensorboard" / stage)).Reload()
        lines = [line for line in read_metrics(empty / "metrics.jsonl") if line["stage"] == stage]
        for name in ("loss", "valid_loss", "learning_rate"):
            expected = [(line["step"], pytest.approx(line[name])) for line in lines if name in line]
            assert [(x.step, x.value) for x in shown.Scalars(f"{stage}/{name}")] == expected


def test_one_loss_and_the_last_validation(trainer, empty, capsys):
    """The summary's loss is that of training, and the line at 100 % has the validation of that step."""
    summary = trainer.train("finetune.start=scratch")
    valid = {x["step"]: x for x in read_metrics(empty / "metrics.jsonl") if "valid_loss" in x}
    best = valid[summary["training"]["finetune"]["best_step"]]
    assert summary["scores"]["valid"]["loss"] == pytest.approx(best["valid_loss"], rel=1e-5)
    assert summary["units"]["loss"] == "squared error of standardised labels"
    (last,) = [line for line in capsys.readouterr().err.splitlines() if "(100 %)" in line]
    assert f"valid Pearson {valid[38]['valid_pearson']:.4f}" in last


@pytest.fixture
def from_another(trainer, tmp_path, run):
    """Settings of a run on 300 of the training rows, from the frozen encoder of another one."""
    few = ("dataset.finetune_train=300", f"dataset.path={tmp_path}/fewer.duckdb", f"shards.path={tmp_path}/shards")
    config = small_config(tmp_path, *few, "shards.workers=1")
    build([str(trainer.made.rows)], config)
    write_shards(config)
    return (*few, "finetune.start=frozen", f"finetune.pretrained={run}/pretrained")


def test_fewer_rows_from_another_runs_encoder_whatever_becomes_of_its_folder(
    trainer, finished, from_another, run, before_step, capsys
):
    whole, other = run.with_name("whole"), run / "pretrained"
    summary = trainer.train(*from_another, "run.name=whole")
    assert summary["training"]["finetune"]["steps"] == 10  # 300 rows, 32 a step
    ids = [pyarrow.parquet.read_table(folder / "predictions.parquet")["id"] for folder in (whole, finished)]
    assert ids[0] == ids[1]
    sha256 = hashlib.sha256((other / "model.safetensors").read_bytes()).hexdigest()
    card = (whole / "model" / "README.md").read_text()
    assert f"model of another run, `{other}` (sha256 `{sha256}`), and was fine-tuned" in card
    assert "| finetune/train | 300 |" in card
    assert f"{other} (sha256 {sha256[:16]}), encoder frozen" in str(run_section(read_run(whole)))
    assert "may have been trained on" not in capsys.readouterr().err

    def killed():
        raise KilledError

    for step in (1, 5):  # 2 is the first checkpoint
        before_step(step, killed)
        with pytest.raises(KilledError):
            trainer.train(*from_another, f"run.name=killed-{step}")
    before_step(0, killed)
    flip(other / "model.safetensors")
    (other / "manifest.json").unlink()
    with pytest.raises(UserError, match="was started from other weights than runs/paper/pretrained holds"):
        trainer.train(*from_another, "run.name=killed-1")
    shutil.rmtree(other)
    trainer.train(*from_another, "run.name=killed-5")
    assert weights(run.with_name("killed-5")) == weights(whole)
    assert "nothing was trained" in trainer.train(*from_another, "run.name=whole")["note"]


def test_another_run_must_have_pretrained_to_its_end_and_held_out_the_same(trainer, run):
    """Else nothing is made, and a note says so."""
    other, given = run / "pretrained", f"finetune.pretrained={run}/pretrained"
    with pytest.raises(UserError, match="this run would not use what it pretrains"):
        trainer.train("run.name=new", given, stages="pretrain")
    manifest = read_manifest(other)
    put_manifest(other, replace(manifest, standing=replace(manifest.standing, ended=False)))
    with pytest.raises(UserError, match="the pretraining of runs/paper/pretrained has not ended"):
        trainer.train("run.name=new", given)
    assert not run.with_name("new").exists()
    config = trainer.made.config
    for changed, said in (
        ({"finetune_train": 300.0}, ""),
        ({"seed": 5, "finetune_test": 0.2}, "(dataset.seed 0, here 5; dataset.finetune_test 0.1, here 0.2)"),
    ):
        dataset = config.dataset.model_copy(update=changed)
        note = held_out_otherwise(other, config.model_copy(update={"dataset": dataset}))
        assert bool(note) == bool(said)
        assert note.endswith(said)
    assert held_out_otherwise(run, config) == ""  # no run.json beside it


@pytest.fixture
def disk(run):
    """The run on a small disk of its own; called with the bytes that are to be free, fills it up to there."""
    if os.geteuid() != 0:
        pytest.skip("a small disk is mounted, which needs root")
    place = Path("runs").absolute()
    aside = place.with_name("aside")
    place.rename(aside)
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", place], check=False).returncode:
        pytest.skip("nothing can be mounted here")

    def fill(free):
        with (place / "filler").open("wb") as file:
            file.write(bytes(max(shutil.disk_usage(place).free - free, 0)))

    try:
        yield aside, fill
    finally:
        subprocess.run(["umount", place], check=True)


def test_a_disk_that_fills_up_at_any_moment_ends_the_run_clearly(trainer, finished, run, disk, before_step):
    """Before the start, and before the last steps with room for less or more of what is still to be written."""
    aside, fill = disk
    ends = set()
    rooms = (0, 45_000, 130_000, 192_000, 200_000, 216_000, 232_000, 240_000, 248_000, 256_000)
    for moment, free in [(0, 0), (0, 9_000), *((35, free) for free in rooms)]:
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(aside / "paper", run)
        unfinished(run)
        before_step(moment, lambda free=free: [shutil.rmtree(run / "model"), fill(free)])
        if not moment:
            (run / "run.json").unlink()
            fill(free)
        error = problem(trainer)
        if error:
            assert "No space left" in error or "0 MB are free" in error
            assert re.search("[Mm]ake room, then", error)
            ends.add(re.search(r"metrics|\w+(?= cannot be written)|[\w.]+(?=: cannot write)", error)[0])
        assert {damage(path) for path in (run / "checkpoints").glob("*/step-*")} == {""}
        assert not list(run.rglob("*partial*"))
        (run.parent / "filler").unlink()
        before_step(0, lambda: None)
        trainer.train()
        assert weights(run) == weights(finished)
    assert {"config.yaml", "checkpoint", "model"} < ends


def problem(trainer):
    try:
        trainer.train()
    except UserError as error:
        return str(error)
    return ""


def test_a_checkpoint_for_other_ranks_needs_room(run, disk):
    aside, fill = disk
    checkpoint = run / "checkpoints" / "finetune" / "step-000000038"
    shutil.copytree(aside / "paper", run)
    fill(4096)
    with pytest.raises(UserError, match=r"cannot be made readable for this number of ranks, 0 MB are free"):
        convert(checkpoint)
    assert damage(checkpoint) == ""
    assert sorted(path.name for path in checkpoint.parent.iterdir() if path.name.startswith((".", "u"))) == []
