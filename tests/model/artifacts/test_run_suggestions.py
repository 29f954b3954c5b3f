"""A wrong path in the place of a model or run: the error says what it is, and names the run to use."""

import json

import pytest

from model.artifacts.model_directory import read_model_facts
from model.artifacts.run_suggestions import format_command
from model.bert.build import check_pretrained
from model.runs.read import read_run
from pipeline.errors import UserError

TRAIN = ["train.py", "--local_rank=0", "--config", "mpra.yaml"]
BASELINE = ["/env/bin/promoter-bert", "baseline", "ridge", "--config", "mpra.yaml", "run.name=mpra", "--epochs", "3"]


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Run `mpra` with both models, and its baseline, in runs/ of the working directory."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs"
    for name, facts in {
        "mpra": {"command": TRAIN},
        "mpra-ridge": {"command": BASELINE, "baseline": {"method": "ridge"}},
    }.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "run.json").write_text(json.dumps(facts))
    for kind in ("model", "pretrained"):
        (folder / "mpra" / kind).mkdir()
        (folder / "mpra" / kind / "config.json").write_text("{}")
    return folder


def error_of(path, read=read_model_facts):
    with pytest.raises(UserError) as error:
        read(path)
    return str(error.value)


@pytest.mark.parametrize("path", ["mpra-ridge", "mpra-ridge/model", "mpra-ridge/run.json"])
def test_a_baseline_has_no_model_and_the_run_that_has_one_is_named(runs, path):
    message = error_of(runs / path)
    assert message.startswith(f"{runs / 'mpra-ridge'}: a baseline has no model")
    assert message.endswith(f"{runs / 'mpra'}")
    assert "promoter-bert" not in message


def test_without_a_run_beside_it_the_training_of_a_baselines_configuration_is_named(runs):
    (runs / "mpra" / "model" / "config.json").unlink()
    assert error_of(runs / "mpra-ridge").endswith(
        "fix: train the model of its configuration: python train.py --config mpra.yaml"
    )
    assert error_of(runs / "mpra").endswith("fix: run its training to the end: deepspeed train.py --config mpra.yaml")


def test_another_run_is_listed_for_a_renamed_baseline(runs):
    (runs / "mpra-ridge").rename(runs / "linear")
    assert error_of(runs / "linear").endswith(f"; runs with a model: {runs / 'mpra'}")


@pytest.mark.parametrize("read", [read_model_facts, read_run])
def test_a_file_is_no_run_directory(runs, tmp_path, read):
    (tmp_path / "table.csv").touch()
    (runs / "mpra" / "config.yaml").touch()
    inside, outside = error_of(runs / "mpra" / "config.yaml", read), error_of(tmp_path / "table.csv", read)
    assert "a file, not a run directory" in inside
    assert inside.endswith(f"fix: use {runs / 'mpra'}")
    assert "a file, not a run directory" in outside
    assert "runs/mpra" in outside.rpartition(": ")[2]


def test_near_or_all_runs_are_named_for_a_missing_folder(runs):
    assert error_of(runs / "mpre").endswith(f"did you mean {runs / 'mpra'}?")
    assert error_of(runs / "nope").endswith(f"; runs with a model: {runs / 'mpra'}")
    assert error_of(runs / "nope", read_run).endswith(f"; runs: {runs / 'mpra'}, {runs / 'mpra-ridge'}")
    (runs / "mpra").rename(runs.parent / "moved")
    assert "fix: train it first" in error_of(runs / "nope")


def test_the_pretrained_model_of_a_run_is_named(runs):
    assert error_of(runs / "mpra", lambda path: check_pretrained(path, None)).endswith(
        f"fix: use {runs / 'mpra' / 'pretrained'}"
    )


def test_recorded_commands_are_shown_as_they_are_typed():
    assert format_command(BASELINE[:4]) == "promoter-bert baseline ridge --config"
    assert format_command(TRAIN) == "train.py --config mpra.yaml"
