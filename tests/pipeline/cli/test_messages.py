"""Messages of the data commands for special results."""

from pipeline.cli.messages import describe_build, describe_preview, describe_replacement, describe_shards
from pipeline.dataset.build import build_dataset
from pipeline.shards.index import read_index
from pipeline.shards.preview import peek
from pipeline.shards.write import write_shards
from tests.conftest import small_config
from tests.pipeline.dataset.toy_dataset import L, R, write


def test_rebuilt_dataset_reports_nothing_to_do(made):
    built = build_dataset([str(made.rows)], made.config)
    assert "nothing to do" in describe_build(built)[0]


def test_grouped_split_reports_the_leaks_of_a_random_split(made, tmp_path):
    built = build_dataset([str(made.rows)], small_config(tmp_path, "dataset.split=grouped"))
    (line,) = (line for line in describe_build(built) if line.startswith("grouped "))
    assert f" {built.info.random_split_leaks:,} held-out row" in line


def test_shards_that_are_present(made):
    (line,) = describe_shards(write_shards(made.config))
    assert line.startswith(str(made.shards))
    assert "all present" in line


def test_replaced_shards_are_described_first(made):
    index = read_index(made.shards)
    line = describe_replacement("shards/k3", index, ["assay.flank: 5 -> 6"])
    records = sum(len(shard.records) for shard in index.shards)
    rows = sum(index.rows(split) for split in index.splits)
    for part in ("shards/k3: ", "k = 3", f"{len(index.shards)} shards", f"{records} records", f"{rows:,} promoters"):
        assert part in line
    assert line.endswith("assay.flank: 5 -> 6")


def test_first_promoter_of_a_shard(made):
    index = read_index(made.shards)
    (promoter,) = peek(made.shards, index, promoters=1)
    place, bases, tokens = describe_preview(promoter, index)
    assert place.startswith(f"{promoter.file} record {promoter.record}, id {promoter.id}, expression ")
    assert bases.strip().replace("|", "") == promoter.extended
    assert tokens.split()[1:-1] == [str(token) for token in promoter.tokens]


def test_a_build_names_its_columns_and_their_ranges(tmp_path):
    rows = "".join(f"{L}{'ACGT' * (2 + row % 3)}{R}\t{row % 7}\n" for row in range(60))
    file = write(tmp_path / "a.tsv", f"Promoter\tlog2FC\n{rows}")
    for _ in range(2):  # the second one finds the dataset
        built = build_dataset([file], small_config(tmp_path))
        assert {"sequences: 'Promoter' (38 … 46 bases)", "labels: 'log2FC' (0 … 6)"} <= set(describe_build(built))
        assert built.as_dict()["label_column"] == "log2FC"
        assert (built.as_dict()["label_range"], built.as_dict()["sequence_lengths"]) == ((0, 6), (38, 46))


def test_constant_labels_are_a_warning(tmp_path):
    file = write(tmp_path / "a.tsv", "".join(f"{L}{'ACGT' * (1 + row)}{R}\t1.0\n" for row in range(60)))
    assert any(line.startswith("warning ") for line in describe_build(build_dataset([file], small_config(tmp_path))))
