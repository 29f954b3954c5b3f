"""Published assays: given splits, several labels and metadata, from the files as they are."""

import duckdb
import pytest

from pipeline.dataset.build import build_dataset
from tests.pipeline.dataset.rows.small_tables import bare_config, select

FLY = ("dataset.labels=[Dev_log2_enrichment, Hk_log2_enrichment]", "assay.max_expression=20")
SIZES = ("dataset.finetune_valid=0.1", "dataset.finetune_test=0.1")


@pytest.fixture
def assays(real_data):
    folder = real_data / "assays"
    if not folder.is_dir():
        pytest.skip("the published assays are not here (folder assays of the folder of real rows)")
    return folder


def rows_of_file(file):
    """The rows of a tab-separated file, by DuckDB's own reader."""
    return duckdb.sql(f"from read_csv('{file}', delim = '\t', header = true)")


def test_fly_enhancers_with_two_labels_and_a_column_of_splits(tmp_path, assays):
    file = assays / "drosophila_sample_train.txt"
    given = ("dataset.split=column", "dataset.split_column=set", "dataset.valid_from_train=0.1")
    config = bare_config(tmp_path, *FLY, *given)
    built = build_dataset([str(file)], config)
    names = 'Sequence, Dev_log2_enrichment, Hk_log2_enrichment, seqnames, start, "end", ID, set'
    expected = rows_of_file(file).select(names).order("all").fetchall()
    kept = names.replace("Sequence", "sequence", 1).replace("ID", "ID_input")
    assert select(config, f"select {kept} from promoters order by all") == expected
    assert built.info.split_rows["finetune/train"] == 900
    assert [label["count"] for label in built.labels] == [1000, 1000]


def test_human_regulatory_sequences_with_one_file_per_split(tmp_path, assays):
    files = {split: [str(assays / f"human_sample_{split}.txt")] for split in ("train", "valid")}
    config = bare_config(tmp_path, "dataset.labels=[mean_value]")
    build_dataset([], config, split_files=files)
    for split, (file,) in files.items():
        ids = f"select id from finetune where split = '{split}'"
        kept = "select seq_id, sequence, expression, fold from promoters"
        found = select(config, f"{kept} where id in ({ids}) order by all")
        assert found == rows_of_file(file).select("seq_id, seq, mean_value, fold").order("all").fetchall()


def test_human_regulatory_sequences_with_held_out_folds(tmp_path, assays):
    file = assays / "human_sample_train.txt"
    given = ("dataset.split=column", "dataset.split_column=fold", "dataset.valid_values=[8]", "dataset.test_values=[9]")
    config = bare_config(tmp_path, "dataset.labels=[mean_value]", *given)
    build_dataset([str(file)], config)
    counts = dict(rows_of_file(file).aggregate("fold, count(*)").fetchall())
    found = select(
        config, "select fold, split, count(*) from promoters join finetune using (id) group by all order by 1"
    )
    assert found == [(n, {8: "valid", 9: "test"}.get(n, "train"), counts[n]) for n in range(10)]


def test_plant_promoters_keep_species_and_gene(tmp_path, assays):
    config = bare_config(tmp_path, *SIZES)
    build_dataset([str(assays / "plant_leaf.tsv")], config)
    expected = rows_of_file(assays / "plant_leaf.tsv").aggregate("sp, count(*), count(distinct gene)").order("sp")
    found = "select sp, count(*), count(distinct gene) from promoters group by sp order by sp"
    assert select(config, found) == expected.fetchall()


def test_case_of_two_labels(tmp_path, real_data):
    file = real_data.parent / "cases" / "01-deepstarr-two-labels__min.tsv"
    if not file.exists():
        pytest.skip("the cases are not here")
    header = file.read_text().split("\n")[0].split("\t")
    config = bare_config(tmp_path, "dataset.labels=[dev, hk]", *SIZES)
    built = build_dataset([str(file)], config)
    assert built.info.labels == ["dev", "hk"]
    assert built.info.promoters == built.info.input_rows == len(file.read_text().splitlines()) - 1
    assert set(built.kept_columns) <= {name for column in header for name in (column, f"{column}_input")}
