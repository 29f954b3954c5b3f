"""The presets of assays: each reads rows of its form; init copies them; the small model fits two CPU cores."""

import json
import shlex

import pytest

from model.cli.app import main
from model.config import load_config
from pipeline.cli.init import describe_assays, write_config
from pipeline.config.schema import DEFAULT_CONFIG
from pipeline.dataset.build import build_dataset
from pipeline.dataset.database import open_dataset, rows_of
from pipeline.dataset.synthetic.generate import generate
from pipeline.errors import UserError
from pipeline.paths import ASSAYS, ROOT
from tests.integration.assay_rows import FLY, GENERIC, HUMAN, PLANT, write_table

FORMS = {"human-lentimpra": HUMAN, "fly-starrseq": FLY, "plant-promoters": PLANT, "mpra-generic": GENERIC}
LABELS = {
    "human-lentimpra": ["mean_value"],
    "fly-starrseq": ["Dev_log2_enrichment", "Hk_log2_enrichment"],
    "plant-promoters": ["enrichment"],
    "mpra-generic": ["activity"],
}
SPLITS = {"human-lentimpra": (24, 3, 3), "fly-starrseq": (18, 6, 6)}
"""Rows of the splits train, valid and test; by default, a tenth each is held out."""


def load(assay, folder, *overrides):
    places = [f"dataset.path={folder}/dataset.duckdb", f"shards.path={folder}/shards", f"run.path={folder}/runs"]
    return load_config(ASSAYS / f"{assay}.yaml", [*places, *overrides])


@pytest.mark.parametrize("assay", FORMS)
def test_rows_of_its_form(tmp_path, assay):
    config = load(assay, tmp_path)
    built = build_dataset([str(write_table(tmp_path / "rows.tsv", FORMS[assay]))], config)
    assert (built.info.promoters, built.info.input_rows, built.rejects) == (30, 30, {})
    splits = SPLITS.get(assay, (24, 3, 3))
    assert tuple(built.info.split_rows[f"finetune/{split}"] for split in ("train", "valid", "test")) == splits
    with open_dataset(config.dataset.path) as connection:
        ((labels,),) = rows_of(connection, "select labels from dataset")
        assert labels == LABELS[assay]
        columns = {name for name, *_ in rows_of(connection, "describe promoters")}
    kept = {name for name in FORMS[assay] if name.lower() not in ("seq", "sequence") and name not in labels}
    assert {f"{name}_input" if name == "ID" else name for name in kept} <= columns


def test_yeast_rows(tmp_path):
    generate(tmp_path / "rows.tsv", 200, seed=3)
    held_out = "dataset.finetune_valid=0.1", "dataset.finetune_test=0.1"
    built = build_dataset([str(tmp_path / "rows.tsv")], load("yeast-random", tmp_path, *held_out))
    assert (built.info.promoters, built.info.split_rows["finetune/test"]) == (200, 20)


def test_yeast_is_the_default():
    preset, default = load_config(ASSAYS / "yeast-random.yaml"), load_config(DEFAULT_CONFIG)
    named = default.model_copy(update={"run": preset.run})
    assert preset.model_dump() == named.model_dump()


@pytest.mark.parametrize("assay", describe_assays())
def test_init_writes_a_file_that_loads_in_any_folder(tmp_path, monkeypatch, capsys, assay):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        main(["init", "--assay", assay])
    assert end.value.code == 0
    printed = [shlex.split(line) for line in capsys.readouterr().out.splitlines()[1:]]
    assert [words[-2:] for words in printed] == [["--config", f"{assay}.yaml"]] * 3
    config = load_config(f"{assay}.yaml")
    assert config.model_dump() == load_config(ASSAYS / f"{assay}.yaml").model_dump()
    assert config.run.name == assay
    assert len((tmp_path / f"{assay}.yaml").read_text().splitlines()) < 50
    assert config.model.hidden == (512 if assay == "yeast-random" else 128)
    with pytest.raises(UserError, match=r"exists .*-o"):
        write_config(assay, tmp_path / f"{assay}.yaml")


@pytest.mark.parametrize("assay", describe_assays())
def test_one_line_chooses_the_model_of_a_gpu_or_of_two_cores(tmp_path, assay):
    small, paper = "base: configs/two-cores.yaml", "base: config.yaml"
    text = (ASSAYS / f"{assay}.yaml").read_text()
    for base, other, hidden in ((small, paper, 512), (paper, small, 128)):
        if base in text:
            (tmp_path / "mine.yaml").write_text(text.replace(base, other))
            changed, before = load_config(tmp_path / "mine.yaml"), load_config(ASSAYS / f"{assay}.yaml")
            assert changed.model.hidden == hidden
            assert (changed.assay, changed.shards.path) == (before.assay, before.shards.path)


def test_init_lists_the_assays(capsys):
    for arguments in (["init"], ["init", "--json"]):
        with pytest.raises(SystemExit):
            main(arguments)
    *lines, as_json = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == sorted(describe_assays())
    assert json.loads(as_json)["assays"] == describe_assays()


@pytest.mark.parametrize(
    ("assay", "output", "message"),
    [("mouse", "x.yaml", "human-lentimpra"), ("mpra-generic", "x.txt", ".yaml"), ("mpra-generic", "no/x.yaml", "no/x")],
)
def test_init_refuses(tmp_path, assay, output, message):
    with pytest.raises(UserError, match=message):
        write_config(assay, tmp_path / output)
    assert not list(tmp_path.iterdir())


def test_a_missing_base_is_named_as_the_user_wrote_it(tmp_path):
    (tmp_path / "mine.yaml").write_text("base: configs/none.yaml\n")
    with pytest.raises(UserError, match=str(tmp_path / "configs" / "none.yaml")):
        load_config(tmp_path / "mine.yaml")
    assert not (ROOT / "configs" / "none.yaml").exists()


def test_real_files(real_data, tmp_path):
    files = {
        "human-lentimpra": ["human_sample_train.txt", "human_sample_valid.txt"],
        "plant-promoters": ["plant_leaf.tsv"],
    }
    for assay, names in files.items():
        folder = tmp_path / assay
        folder.mkdir()
        built = build_dataset([str(real_data / "assays" / name) for name in names], load(assay, folder))
        assert built.rejects == {}
        assert built.info.promoters == {"human-lentimpra": 2000, "plant-promoters": 7154}[assay]
    assert built.info.split_rows["finetune/test"] == 715
