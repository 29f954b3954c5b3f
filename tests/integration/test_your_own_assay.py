"""Every command of docs/your-own-assay.md: small files of its form are built, sharded and trained on."""

import shlex

import pytest

from model.cli.app import main
from model.config import load_config
from pipeline.paths import ROOT
from tests.documents import read_blocks
from tests.integration.assay_rows import FLY, HUMAN, PLANT, bases, write_table
from tests.integration.conftest import make_workspace

COMMANDS = [
    shlex.split(line) for block in read_blocks(ROOT / "docs" / "your-own-assay.md", "sh") for line in block.splitlines()
]
QUICK = "init", "build", "shards", "query"
"""Commands that need no trained model."""


def write_files(folder):
    """Write files of the names on the page, in their forms: 90 rows each."""
    for start, split in enumerate(("train", "valid")):
        rows = range(90 * start, 90 * start + 90)
        write_table(folder / f"human_sample_{split}.txt", HUMAN, rows)
        name = "drosophila_sample_val.txt" if split == "valid" else "drosophila_sample_train.txt"
        write_table(folder / name, FLY, rows)
    write_table(folder / "plant_leaf.tsv", PLANT, range(90))
    entries = (f">candidate{row}\n{bases(200, seed=5)(row)}\n" for row in range(3))
    (folder / "candidates.fasta").write_text("".join(entries))


def test_datasets_and_shards(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path)
    for program, name, *arguments in COMMANDS:
        if program == "promoter-bert" and name in QUICK:
            with pytest.raises(SystemExit) as end:
                main([name, *arguments])
            assert end.value.code == 0, (name, arguments, capsys.readouterr().err)
        elif program == "python":
            config = load_config(arguments[1], arguments[2:])
            assert (tmp_path / config.shards.path / f"k{config.shards.k}").exists()
            assert (tmp_path / config.dataset.path).exists()


@pytest.mark.long
@pytest.mark.processes
@pytest.mark.timeout(1800)
def test_all_commands_run(tmp_path):
    workspace = make_workspace(tmp_path / "work")
    write_files(workspace.folder)
    for program, *arguments in COMMANDS:
        words = ["pretrain.max_epochs=1", "finetune.max_epochs=1"] if program == "python" else []
        workspace.run(program, *arguments, *words)
    lines = (workspace.folder / "predictions.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["name", "candidate0", "candidate1", "candidate2"]
    assert not any("nan" in line for line in lines)
