import pytest

from model.config import load_config
from model.runs.fingerprint import flat
from pipeline.errors import UserError
from tests.conftest import ROOT


@pytest.mark.parametrize(
    "path", [ROOT / "config.yaml", *sorted((ROOT / "configs").glob("*.yaml"))], ids=lambda p: p.name
)
def test_every_shipped_file_is_valid(path):
    load_config(path)


def test_the_default_is_the_papers_preset():
    config = load_config(ROOT / "config.yaml")
    assert (config.model.hidden, config.model.heads, config.model.intermediate, config.model.layers) == (
        512,
        8,
        2048,
        3,
    )
    assert (config.shards.k, config.assay.flank, config.dataset.top_fraction) == (3, 150, 0.2)
    assert (config.dataset.finetune_valid, config.dataset.finetune_test) == (152_786, 76_393)
    assert (config.dataset.pretrain_valid, config.dataset.pretrain_valid_at_most) == (1 / 20, 100_000)
    pretrain, finetune = config.pretrain, config.finetune
    assert (pretrain.global_batch, finetune.global_batch) == (128, 64)
    assert pretrain.learning_rate == finetune.learning_rate == 1e-4
    assert pretrain.mask_share == 0.15
    assert pretrain.plateau.model_dump() == {"factor": 0.5, "patience": 2, "threshold": 1e-4, "min_lr": 1e-6}
    assert finetune.plateau.model_dump() == {"factor": 0.5, "patience": 2, "threshold": 1e-4, "min_lr": 1e-7}
    assert (pretrain.early_stop, finetune.early_stop) == (20, 10)
    assert config.assay.upstream.endswith(config.assay.left_adapter)
    assert config.assay.downstream.startswith(config.assay.right_adapter)
    assert len(config.assay.upstream) == len(config.assay.downstream) == 150


def test_overrides_and_base_files(tmp_path):
    (tmp_path / "mine.yaml").write_text(f"base: {ROOT}/config.yaml\nshards: {{k: 4}}\n")
    config = load_config(tmp_path / "mine.yaml", ["pretrain.learning_rate=3e-4", "run.name=x"])
    assert config.shards.k == 4
    assert config.shards.workers == 2
    assert config.pretrain.learning_rate == 3e-4
    assert config.run.name == "x"


@pytest.mark.parametrize("name", ["5", "007", "1e3", "2026-01-05", "true", "null", "1_000"])
def test_text_that_looks_like_something_else_stays_as_it_was_typed(tmp_path, name):
    assert load_config(ROOT / "config.yaml", [f"run.name={name}"]).run.name == name
    (tmp_path / "mine.yaml").write_text(f"base: {ROOT}/config.yaml\nrun: {{name: 5}}\n")
    with pytest.raises(UserError, match=r"run\.name: expected text, got 5: put it in quotes"):
        load_config(tmp_path / "mine.yaml")


@pytest.mark.parametrize(
    ("override", "name"),
    [
        ("pretrain.lr=1", "pretrain.lr"),
        ("nothing=1", "nothing"),
        ("shards.k=9", "shards.k"),
        ("shards.k=three", "shards.k"),
        ("shards.k=3.5", "shards.k"),
        ("shards.k=", "shards.k"),
        ("model.heads=7", "heads"),
        ("model.dropout=1", "model.dropout"),
        ("assay.flank=151", "flank"),
        ("assay.left_adapter=acgt", "assay.left_adapter"),
        ("assay.min_expression=20", "min_expression"),
        ("dataset.top_fraction=0", "dataset.top_fraction"),
        ("dataset.finetune_test=10.5", "dataset.finetune_test"),
        ("dataset.finetune_test=-1", "dataset.finetune_test"),
        ("dataset.finetune_test=.inf", "dataset.finetune_test"),
        ("finetune.start=best", "finetune.start"),
        ("pretrain.plateau=3", "pretrain.plateau"),
        ("pretrain.learning_rate=nan", "pretrain.learning_rate"),
        ("run.name=a/b", "run.name"),
        ("run=3", "run"),
    ],
)
def test_what_cannot_be_is_refused_with_the_keys_name(override, name):
    with pytest.raises(UserError, match=name):
        load_config(ROOT / "config.yaml", [override])


@pytest.mark.parametrize("value", ["lots", "-1", ".nan", ".inf", "10.5", "true", "", "[1]"])
def test_a_wrong_number_of_training_rows_is_one_line_in_the_settings_own_words(value):
    with pytest.raises(UserError) as error:
        load_config(ROOT / "config.yaml", [f"dataset.finetune_train={value}"])
    _, line = str(error.value).splitlines()
    assert line.startswith(("  dataset.finetune_train: expected all, ", "  dataset.finetune_train: a size from 1 on"))
    assert line.endswith(" (on the command line)")


def test_a_start_from_nothing_and_from_another_run_at_once_is_refused():
    with pytest.raises(UserError, match=r"finetune: start is scratch, so expected pretrained: own, got runs/a/pretr"):
        load_config(ROOT / "config.yaml", ["finetune.start=scratch", "finetune.pretrained=runs/a/pretrained"])


@pytest.mark.parametrize("value", ["all", 8000, 0.5, 0])
def test_numbers_of_training_rows(value):
    config = load_config(ROOT / "config.yaml", [f"dataset.finetune_train={value}"])
    assert config.model_dump()["dataset"]["finetune_train"] == value


@pytest.mark.parametrize(
    "text", ["", "- a\n", "a: [", "run: {name: a, name: b}\n", "base: nowhere.yaml\n", "base: 3\n"]
)
def test_a_broken_file_is_a_clear_error(tmp_path, text):
    (tmp_path / "broken.yaml").write_text(text)
    with pytest.raises(UserError):
        load_config(tmp_path / "broken.yaml")


def test_a_missing_section_is_named(tmp_path):
    (tmp_path / "part.yaml").write_text("run: {name: a}\n")
    with pytest.raises(UserError, match=r"missing: .*assay"):
        load_config(tmp_path / "part.yaml")


def test_the_preset_of_what_was_better_differs_from_the_papers_in_that_alone():
    paper, best = (flat(load_config(ROOT / name).model_dump()) for name in ("config.yaml", "configs/best.yaml"))
    assert {name: best[name] for name in paper if best[name] != paper[name]} == {
        "run.name": "best",
        "assay.flank": 0,
        "shards.path": "best-shards",
        "shards.k": 6,
        "finetune.tokens": "overlapping",
    }
