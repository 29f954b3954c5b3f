"""The table of docs/mpra-mnist.md: a dataset from 30 rows in the form of each study, with the configuration there."""

import shlex

import pytest

from model.config import load_config
from pipeline.dataset.build import build_dataset
from pipeline.dataset.database import open_dataset, rows_of
from pipeline.paths import ASSAYS, ROOT
from tests.integration.assay_rows import ROWS, SPLIT, bases, cycle, label, name, write_table

PAGE = (ROOT / "docs" / "mpra-mnist.md").read_text(encoding="utf-8")
TABLE = [[cell.strip() for cell in line.split("|")[1:-1]] for line in PAGE.splitlines() if line.startswith("| ")][1:]
CONFIGURATIONS = {row[0]: shlex.split(row[5].strip("`")) for row in TABLE if row[5] != "none"}
REGION = {
    "chromosome": cycle("1", "7", "13", "19", "21", "X"),
    "start": lambda row: 300 * row,
    "strand": cycle("+", "-"),
}
FORMS = {
    "Agarwal 2025, one": {
        "seq_id": name, **REGION, "seq": bases(200), "expression": label(1), "averaged_expression": label(2),
        "fold": cycle(*range(1, 11)),
    },
    "Agarwal 2025, joint": {
        "seq_id": name, **REGION, "seq": bases(200), "HepG2": label(1), "K562": label(2), "WTC11": label(3),
        "fold": cycle(*range(1, 11)),
    },
    "van Arensbergen": {
        **REGION, "split": SPLIT, "seq": lambda row: bases(150 + 10 * row)(row),
        "avg_K562_exp": label(1, 0, 40), "avg_HepG2_exp": label(2, 0, 40),
    },
    "Barbadilla": {
        "chr": cycle("chr1"), "start": lambda row: 300 * row, "FEATtype": cycle(0, 1), "sequence": bases(230),
        "pDNA_pHY3_T2": cycle(3, 20, 30), "Log2RPM_AGS": label(1), "Log2RPM_HAP1": label(2),
    },
    "Gosai": {
        "seq_id": name, **REGION, "data_project": cycle("UKBB", "GTEX", "CRE"), "sequence": bases(200),
        "K562_log2FC": label(1), "HepG2_log2FC": label(2), "SKNSH_log2FC": label(3),
        "K562_lfcSE": cycle(0.1, 0.2, 0.3, 0.4, 1.5), "HepG2_lfcSE": cycle(0.1), "SKNSH_lfcSE": cycle(0.1),
    },
    "Frömel": {
        "Seq": bases(200, alphabet="ACGTacgt"), "CRS": name, "fold": cycle(*range(9), 9, 10, "test"),
        "State_1M": label(1), "State_5M": lambda row: "" if row % 3 else label(2)(row),
    },
    "Ernst": {
        "name": name, **REGION, "seq": bases(145), "split": SPLIT,
        **{f"{cell}_{promoter}_{rep}": label(row) for row, (cell, promoter, rep) in enumerate(
            (cell, promoter, rep)
            for cell in ("k562", "hepg2") for promoter in ("minp", "sv40p") for rep in ("rep1", "rep2", "avg")
        )},
    },
    "Reddy": {
        "sequence": bases(250), **{cell: cycle("True", "False") for cell in ("JURKAT", "K562", "THP1")},
        **{f"numerical_{cell}": label(row) for row, cell in enumerate(("JURKAT", "K562", "THP1"))},
    },
    "Evfratov": {
        "sequence": bases(23, alphabet="ACGU"), **{f"F{number}": cycle(0, 3, 14) for number in range(1, 9)},
        "mean_bin": label(1, 1, 8),
    },
    "Wang": {"sequence": bases(50, alphabet="acgt"), "target": label(1, 0, 100), "split": SPLIT},
    "Rafi": {"seq": bases(80), "label": label(1, 0, 17)},
    "Vaishnav": {"seq": bases(80), "label": label(1, 0, 17), "split": cycle("train", "train", "val")},
    "de Almeida": {
        "name": name, **REGION, "sequence": bases(249), "Dev_log2": label(1), "Hk_log2": label(2), "split": SPLIT,
    },
}  # fmt: skip
"""Start of the study's name -> its columns, as docs/mpra-mnist.md and the collection describe them."""
ROWS_USED = {"Barbadilla": 20, "Gosai": 24, "Frömel": 28}
"""Rows that dataset.where leaves."""


def configuration(study, folder):
    (words,) = (words for name, words in CONFIGURATIONS.items() if name.startswith(study))
    places = f"dataset.path={folder}/dataset.duckdb", f"shards.path={folder}/shards"
    return load_config(ASSAYS / f"{words[0]}.yaml", [*places, *words[1:]])


def test_every_row_of_the_table_has_a_form():
    assert len(TABLE) == 15
    assert len(CONFIGURATIONS) == len(FORMS) + 1  # Sahu: FASTA


def test_fasta_with_labels_in_the_headers(tmp_path):
    header = ">NS500683:269:H23L5AFXY:3:{0}:23696:10856:1:N:0:GTCCGC {1}\n{2}\n"
    entries = (header.format(row, row % 2, bases(170, alphabet="acgt")(row)) for row in range(ROWS))
    (tmp_path / "rows.fasta").write_text("".join(entries))
    built = build_dataset([str(tmp_path / "rows.fasta")], configuration("Sahu", tmp_path))
    assert (built.info.promoters, built.label_range) == (ROWS, (0, 1))


@pytest.mark.parametrize("study", FORMS)
def test_rows_in_the_form_of_a_study(tmp_path, study):
    config = configuration(study, tmp_path)
    built = build_dataset([str(write_table(tmp_path / "rows.tsv", FORMS[study]))], config)
    assert built.info.promoters == ROWS_USED.get(study, ROWS)
    with open_dataset(config.dataset.path) as connection:
        ((labels,),) = rows_of(connection, "select labels from dataset")
        assert labels == config.dataset.labels
        lengths = {length for (length,) in rows_of(connection, "select distinct length(sequence) from promoters")}
    assert max(lengths) <= config.assay.max_insert + len(config.assay.left_adapter) + len(config.assay.right_adapter)
    split = built.info.split_rows
    if config.dataset.split == "column":
        held_out = {"Vaishnav": (10, 0), "Gosai": (12, 8), "Frömel": (2, 2)}
        assert (split["finetune/valid"], split["finetune/test"]) == held_out.get(
            study, (3, 3) if "fold" in FORMS[study] else (6, 6)
        )
