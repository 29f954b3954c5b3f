"""Suggestions for mistyped names."""

import pytest

from pipeline.cli.init import write_config
from pipeline.config.loader import load_data_config
from pipeline.dataset.input.cells import Table
from pipeline.dataset.input.columns import find_field
from pipeline.dataset.input.files import resolve_files
from pipeline.errors import UserError
from pipeline.paths import find_similar


def test_a_name_that_begins_alike_comes_before_a_similar_one():
    known = ["yeast-random", "yeas", "fly-starrseq"]
    assert find_similar("yeast", known) == "yeast-random"
    assert find_similar("fly-starseq", known) == "fly-starrseq"
    assert find_similar("zebrafish", known) == ""


def test_missing_files_have_suggestions(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "promoters_plate3.csv").write_text("A,1\n")
    (tmp_path / "promoters_plate3.duckdb").write_text("")
    (tmp_path / "mine.yaml").write_text("")
    for action, end in (
        (lambda: resolve_files(["promoter_plate3.csv"]), "did you mean promoters_plate3.csv?"),
        (lambda: load_data_config("mine"), "did you mean mine.yaml?"),
        (lambda: load_data_config("mpra-generic"), "fix: promoter-bert init --assay mpra-generic"),
    ):
        with pytest.raises(UserError) as error:
            action()
        assert str(error.value).endswith(f"; {end}")
    with pytest.raises(UserError, match=r"did you mean yeast-random\?"):
        write_config("yeast", tmp_path / "new.yaml")


def test_mistyped_columns_have_suggestions():
    table = Table("rows.tsv", ["seq", "log2_enrichment", "chrom"], [], 3)
    for wrong, end in (
        ("log2_enrichement", "; did you mean log2_enrichment?"),
        ("weight", "it has seq, log2_enrichment, chrom"),
    ):
        with pytest.raises(UserError) as error:
            find_field(table, wrong)
        assert str(error.value).endswith(end)
