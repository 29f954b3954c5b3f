"""The whole configuration: the shipped files, and the settings of training."""

import pytest

from model.config import OPTION_SETTINGS, load_config, suggest_setting
from model.runs.fingerprint import flatten
from pipeline.errors import UserError
from tests.conftest import ROOT

CONFIG = ROOT / "config.yaml"


@pytest.mark.parametrize("path", [CONFIG, *sorted((ROOT / "configs").glob("*.yaml"))], ids=lambda p: p.name)
def test_every_shipped_config_is_valid(path):
    load_config(path)


def test_default_config_has_the_training_settings_of_the_paper():
    config = load_config(CONFIG)
    model, pretrain, finetune = config.model, config.pretrain, config.finetune
    assert (model.hidden, model.heads, model.intermediate, model.layers) == (512, 8, 2048, 3)
    assert (pretrain.global_batch, finetune.global_batch) == (128, 64)
    assert pretrain.learning_rate == finetune.learning_rate == 1e-4
    assert pretrain.mask_share == 0.15
    assert pretrain.plateau.model_dump() == {"factor": 0.5, "patience": 2, "threshold": 1e-4, "min_lr": 1e-6}
    assert finetune.plateau.model_dump() == {"factor": 0.5, "patience": 2, "threshold": 1e-4, "min_lr": 1e-7}
    assert (pretrain.early_stop, finetune.early_stop) == (20, 10)


def test_overrides_apply_to_every_section():
    config = load_config(CONFIG, ["pretrain.learning_rate=3e-4", "run.name=5", "shards.k=4"])
    assert (config.pretrain.learning_rate, config.run.name, config.shards.k) == (3e-4, "5", 4)


@pytest.mark.parametrize(
    ("override", "name"),
    [
        ("pretrain.lr=1", "pretrain.lr"),
        ("model.heads=7", "heads"),
        ("model.dropout=1", "model.dropout"),
        ("finetune.start=best", "finetune.start"),
        ("pretrain.plateau=3", "pretrain.plateau"),
        ("pretrain.learning_rate=nan", "pretrain.learning_rate"),
        ("run.name=a/b", "run.name"),
        ("run=3", "run"),
    ],
)
def test_invalid_override_is_reported_with_its_key(override, name):
    with pytest.raises(UserError, match=name):
        load_config(CONFIG, [override])


def test_start_from_scratch_and_from_another_run_is_an_error():
    with pytest.raises(UserError, match=r"finetune: pretrained is runs/a/pretrained, but with .*start=scratch it"):
        load_config(CONFIG, ["finetune.start=scratch", "finetune.pretrained=runs/a/pretrained"])


@pytest.mark.parametrize(
    ("overrides", "stages"),
    [
        ([], ["pretrain", "finetune"]),
        (["finetune.start=frozen"], ["pretrain", "finetune"]),
        (["finetune.start=scratch"], ["finetune"]),
        (["finetune.pretrained=runs/a/pretrained"], ["finetune"]),
    ],
)
def test_stages_follow_from_the_start_of_fine_tuning(overrides, stages):
    config = load_config(CONFIG, overrides)
    assert config.stages("both") == stages
    assert config.stages("pretrain") == ["pretrain"]


def test_presets_differ_from_their_base_in_listed_settings_only():
    paper, best, small = (
        flatten(load_config(ROOT / name).model_dump())
        for name in ("config.yaml", "configs/best.yaml", "configs/small.yaml")
    )
    assert {name: best[name] for name in best if best[name] != paper.get(name)} == {
        "run.name": "best",
        "assay.flank": 6,
        "shards.path": "best-shards",
        "shards.k": 7,
        "model.architecture": "modernbert",
        "model.kmer_embedding": "composed",
        "model.intermediate": 1024,
        "model.dropout": 0.0,
        "pretrain.objective": "spans",
        "pretrain.mask_share": 0.2,
        "pretrain.optimizer": "muon",
        "pretrain.schedule": "onecycle",
        "pretrain.weight_decay": 0.1,
        "pretrain.max_epochs": 5,
        "pretrain.early_stop": 1000,
        "finetune.start": "scratch",
        "finetune.tokens": "overlapping",
        "finetune.global_batch": 512,
        "finetune.learning_rate": 5e-4,
        "finetune.schedule": "onecycle",
        "finetune.optimizer": "muon",
        "finetune.weight_decay": 0.1,
        "finetune.max_epochs": 10,
        "finetune.early_stop": 1000,
    }
    sections = {name.split(".")[0] for name in small if small[name] != best.get(name)}
    assert sections == {"run", "dataset", "shards", "model", "pretrain", "finetune"}
    changed = {name for name in small if small[name] != best.get(name) and name.startswith("model")}
    assert changed == {"model.hidden", "model.heads", "model.intermediate", "model.dropout"}


def test_settings_of_later_versions_are_in_dumps_only_if_they_are_set():
    """The paper's dump, from which run directories and checkpoints are recognized, stays as it was."""
    dump = load_config(CONFIG).model_dump()
    assert not {"architecture", "kmer_embedding", "attention_window", "global_attention_every"} & dump["model"].keys()
    later = {"optimizer", "muon_learning_rate", "schedule", "weight_decay", "gradient_clipping"}
    assert not any(later & dump[stage].keys() for stage in ("pretrain", "finetune"))
    set_now = load_config(CONFIG, ["model.kmer_embedding=composed", "finetune.schedule=cosine"]).model_dump()
    assert set_now["model"]["kmer_embedding"] == "composed"
    assert set_now["finetune"]["schedule"] == "cosine"


@pytest.mark.parametrize(
    ("option", "values", "suggestion"),
    [
        ("--k", ["run.name=six", "6"], "use shards.k=6"),
        ("--k=6", [], "use shards.k=6"),
        ("-o", ["out"], "use run.path=out"),
        ("--dataset", ["my.duckdb"], "use dataset.path=my.duckdb"),
        ("--Learning_Rate", ["1e-3"], "use pretrain.learning_rate=1e-3 or finetune.learning_rate=1e-3"),
        ("--hidden", [], "use model.hidden=VALUE"),
        ("--fast", [], "config.yaml lists the settings"),
    ],
)
def test_options_that_train_does_not_have_name_their_setting(option, values, suggestion):
    assert suggest_setting(option, values).endswith(suggestion)


def test_settings_of_options_exist():
    for option in OPTION_SETTINGS:
        keys = suggest_setting(f"--{option}").removeprefix("fix: use ").split(" or ")
        known = flatten(load_config(CONFIG).model_dump())
        assert all(key.partition("=")[0] in known for key in keys)


def test_a_key_without_its_section_names_the_section():
    with pytest.raises(UserError, match=r"k: the section is missing; expected shards\.k as the key"):
        load_config(CONFIG, ["k=6"])
