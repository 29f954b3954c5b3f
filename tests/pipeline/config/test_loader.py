"""The loader: files, base files, overrides and errors; and the data sections of the schema."""

from pathlib import Path

import pytest

from pipeline.config.loader import find_keys, load_config, load_data_config
from pipeline.config.schema import DEFAULT_CONFIG, DataConfig
from pipeline.errors import UserError
from tests.conftest import ROOT

CONFIG = ROOT / "config.yaml"


def test_default_config_has_the_data_settings_of_the_paper():
    config = load_data_config(CONFIG)
    assert (config.shards.k, config.assay.flank, config.dataset.top_fraction) == (3, 150, 0.2)
    assert (config.dataset.finetune_valid, config.dataset.finetune_test) == (152_786, 76_393)
    assert (config.dataset.pretrain_valid, config.dataset.pretrain_valid_at_most) == (1 / 20, 100_000)
    assert config.assay.upstream.endswith(config.assay.left_adapter)
    assert config.assay.downstream.startswith(config.assay.right_adapter)
    assert len(config.assay.upstream) == len(config.assay.downstream) == 150


def test_overrides_win_over_a_file_and_a_file_over_its_base(tmp_path):
    (tmp_path / "mine.yaml").write_text(f"base: {CONFIG}\nshards: {{k: 4, workers: 7}}\n")
    (tmp_path / "other.yaml").write_text("base: mine.yaml\nshards: {k: 5}\n")
    config = load_data_config(tmp_path / "other.yaml", ["shards.cache=x"])
    assert (config.shards.k, config.shards.workers, config.shards.cache) == (5, 7, "x")
    assert config.dataset == load_data_config(CONFIG).dataset


def test_training_sections_are_ignored():
    config = load_data_config(CONFIG, ["run.name=x", "finetune.max_epochs=1"])
    assert set(config.model_dump()) == {"assay", "dataset", "shards"}


def test_config_records_its_file_and_overrides(tmp_path):
    mine = tmp_path / "my file.yaml"
    mine.write_text(f"base: {CONFIG}\n")
    overrides = ["shards.k=4", "dataset.seed=1", "shards.cache=a b"]
    config = load_data_config(mine, overrides)
    assert config.was_overridden("dataset.seed")
    assert not config.was_overridden("dataset.path")
    assert config.format_arguments("shards") == ["--config", f"'{mine}'", "shards.k=4", "'shards.cache=a b'"]
    assert load_data_config(DEFAULT_CONFIG, overrides).format_arguments("dataset") == ["dataset.seed=1"]


def test_find_keys_returns_full_names():
    assert find_keys("seed", DataConfig) == ["dataset.seed"]
    assert find_keys("nothing", DataConfig) == []


@pytest.mark.parametrize("name", ["5", "007", "1e3", "2026-01-05", "true", "null", "1_000"])
def test_text_like_another_type_stays_text(tmp_path, name):
    assert load_data_config(CONFIG, [f"dataset.path={name}"]).dataset.path == name
    (tmp_path / "mine.yaml").write_text(f"base: {CONFIG}\ndataset: {{path: 5}}\n")
    with pytest.raises(UserError, match=r"dataset\.path: expected text, got 5"):
        load_data_config(tmp_path / "mine.yaml")


@pytest.mark.parametrize(
    ("override", "name"),
    [
        ("nothing=1", "nothing"),
        ("shards.kk=1", "shards.kk"),
        ("shards.k=9", "shards.k"),
        ("shards.k=three", "shards.k"),
        ("shards.k=3.5", "shards.k"),
        ("shards.k=", "shards.k"),
        ("shards.k.more=1", "k is a value"),
        ("shards.k=[", "shards.k"),
        ("shards=3", "shards"),
        ("assay.flank=151", "flank"),
        ("assay.left_adapter=acgt", "assay.left_adapter"),
        ("assay.min_expression=20", "min_expression"),
        ("dataset.top_fraction=0", "dataset.top_fraction"),
        ("dataset.finetune_test=10.5", "dataset.finetune_test"),
        ("dataset.finetune_test=-1", "dataset.finetune_test"),
        ("dataset.finetune_test=.inf", "dataset.finetune_test"),
    ],
)
def test_invalid_override_is_reported_with_its_key(override, name):
    with pytest.raises(UserError, match=name):
        load_data_config(CONFIG, [override])


def test_unknown_key_suggests_the_nearest_key():
    with pytest.raises(UserError, match=r"shards\.worker: .*\bworkers\?"):
        load_data_config(CONFIG, ["shards.worker=1"])


@pytest.mark.parametrize("value", ["lots", "-1", ".nan", ".inf", "10.5", "true", "", "[1]"])
def test_invalid_number_of_training_rows_is_reported_once(value):
    with pytest.raises(UserError) as error:
        load_data_config(CONFIG, [f"dataset.finetune_train={value}"])
    head, line = str(error.value).splitlines()
    assert head == "command line: invalid configuration:"
    assert line.startswith(("  dataset.finetune_train: expected all, ", "  dataset.finetune_train: expected a whole "))


def test_errors_of_the_file_and_of_the_command_line_are_told_apart(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(f"base: {CONFIG}\ndataset: {{sed: 1}}\n")
    overrides = ["dataset.top_fractio=0.5", "shrds.k=3", "shards.k=9"]
    with pytest.raises(UserError) as error:
        load_config(file, overrides, DataConfig)
    keys = [line.partition(":")[0].strip() for line in str(error.value).splitlines()]
    assert keys[:3] == [str(file), "dataset.sed", "command line"]
    assert sorted(keys[3:]) == ["dataset.top_fractio", "shards.k", "shrds"]


@pytest.mark.parametrize("value", ["all", 8000, 0.5, 0])
def test_valid_numbers_of_training_rows_are_accepted(value):
    config = load_data_config(CONFIG, [f"dataset.finetune_train={value}"])
    assert config.model_dump()["dataset"]["finetune_train"] == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "- a\n",
        "a: [",
        "shards: {k: 3, k: 4}\n",
        "base: nowhere.yaml\n",
        "base: 3\n",
        "base: broken.yaml\n",
        "base: below.yaml\n",
    ],
)
def test_invalid_file_is_reported_with_its_path(tmp_path, text):
    (tmp_path / "broken.yaml").write_text(text)
    (tmp_path / "below.yaml").write_text("base: broken.yaml\n")
    with pytest.raises(UserError) as error:
        load_config(tmp_path / "broken.yaml", [], DataConfig)
    assert str(error.value).startswith(str(tmp_path))


def test_missing_section_is_reported(tmp_path):
    (tmp_path / "part.yaml").write_text("shards: {k: 3}\n")
    with pytest.raises(UserError, match=r"missing: .*assay"):
        load_data_config(Path(tmp_path / "part.yaml"))
