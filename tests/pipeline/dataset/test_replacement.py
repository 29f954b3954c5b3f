"""Which builds replace an existing dataset, and which are refused without replace."""

import os
import tempfile
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from pipeline.dataset import workspace
from pipeline.dataset.build import build_dataset
from pipeline.dataset.database import open_dataset
from pipeline.dataset.query import run_query
from pipeline.errors import UserError
from tests.pipeline.dataset.toy_dataset import BARE, GOOD, everything, line, toy_config, write


def record_runs(database, *names):
    with open_dataset(database, read_only=False) as connection:
        for name in names:
            connection.execute("insert into runs (run) values (?)", [name])


def refused(config, files, message):
    """Check that the dataset is kept, and that replace=True replaces it."""
    before = everything(config.dataset.path)
    with pytest.raises(UserError, match=rf"{message}; fix: --dataset NAME.duckdb .*, or --replace"):
        build_dataset(files, config)
    assert everything(config.dataset.path) == before
    assert not list(Path(config.dataset.path).parent.glob(".*"))
    build_dataset(files, config, replace=True)
    assert everything(config.dataset.path) != before


def test_unlabelled_rows_do_not_replace_labels(tmp_path):
    config = toy_config(tmp_path)
    build_dataset([write(tmp_path / "toy.tsv", GOOD)], config)
    bare = write(tmp_path / "bare.txt", BARE)
    refused(config, [bare], r"12 promoters with labels.*12 promoters without labels.* lose the labels, rows of toy.tsv")
    write(tmp_path / "toy.tsv", GOOD)
    build_dataset([str(tmp_path / "toy.tsv")], config, replace=True)
    refused(config, [write(tmp_path / "toy.tsv", BARE)], r"would lose the labels")


def test_other_files_do_not_replace_a_dataset(tmp_path):
    config = toy_config(tmp_path)
    build_dataset([write(tmp_path / "toy.tsv", GOOD)], config)
    other = write(tmp_path / "other.tsv", GOOD + line("ACGT", 5))
    refused(config, [other], r"this build of other.tsv has 13 .* lose rows of toy.tsv")
    refused(config, [str(tmp_path / "toy.tsv"), other], r"this build of other.tsv, toy.tsv .* lose rows of other.tsv")


def test_same_rows_in_another_file_replace_the_dataset(tmp_path):
    """The dataset key is the same, so runs stay, too."""
    config = toy_config(tmp_path)
    build_dataset([write(tmp_path / "toy.tsv", GOOD)], config)
    record_runs(config.dataset.path, "first")
    built = build_dataset([write(tmp_path / "moved.tsv", GOOD)], config)
    assert (built.reused, built.runs_left_out) == (False, 0)
    with open_dataset(config.dataset.path) as connection:
        assert connection.execute("select run from runs").fetchall() == [("first",)]
        assert connection.execute("select files from dataset").fetchall() == [(["moved.tsv"],)]


def test_settings_replace_a_dataset_of_the_same_files_unless_it_has_runs(tmp_path, monkeypatch):
    file = write(tmp_path / "toy.tsv", GOOD)
    build_dataset([file], toy_config(tmp_path))
    monkeypatch.chdir(tmp_path)  # the same file by another name
    config = toy_config(tmp_path, "dataset.seed=1")
    assert not build_dataset(["toy.tsv"], config).reused
    write(tmp_path / "toy.tsv", GOOD + line("ACGT", 5))  # and with other rows by now
    assert build_dataset(["toy.tsv"], config).info.promoters == 13
    record_runs(config.dataset.path, *"abcde")
    refused(toy_config(tmp_path, "dataset.seed=2"), ["toy.tsv"], r"would lose 5 recorded runs \(a, b, c and 2 more\)")


def test_dataset_without_recorded_files_counts_as_of_other_files(tmp_path):
    """Datasets of version 0.1.0 have no record of their files."""
    file = write(tmp_path / "toy.tsv", GOOD)
    build_dataset([file], config := toy_config(tmp_path))
    with open_dataset(config.dataset.path, read_only=False) as connection:
        connection.execute("alter table dataset drop files")
        connection.execute("alter table dataset drop source")
    with pytest.raises(UserError, match=r"would lose rows of its files \(not recorded\)"):
        build_dataset([file], toy_config(tmp_path, "dataset.seed=1"))
    assert not build_dataset([file], config).reused  # the same rows


@pytest.mark.parametrize("folder", ["same", "other"])
def test_symbolic_links_stay_and_their_targets_are_replaced(tmp_path, folder):
    """dataset.duckdb, its Parquet and rejects as links: replaced atomically, also across file systems."""
    with tempfile.TemporaryDirectory(dir=Path("/dev/shm") if folder == "other" else tmp_path) as name:
        file = write(tmp_path / "toy.tsv", GOOD)
        for output in ("dataset.parquet", "dataset.rejects.parquet"):
            (tmp_path / output).symlink_to(Path(name) / f"real-{output}")
        for seed in (0, 1):
            built = build_dataset([file], config := toy_config(tmp_path, f"dataset.seed={seed}"))
            assert pq.read_table(tmp_path / "dataset.parquet").num_rows == 12
            assert built.parquet == str(Path(name) / "real-dataset.parquet")
            assert build_dataset([file], config).reused
        assert {path.name for path in Path(name).iterdir()} == {"real-dataset.parquet", "real-dataset.rejects.parquet"}
        assert (tmp_path / "dataset.parquet").is_symlink()
        assert (tmp_path / "dataset.rejects.parquet").is_symlink()
        link = tmp_path / "links" / "d.duckdb"
        link.parent.mkdir()
        link.symlink_to("../dataset.duckdb")
        assert build_dataset([file], toy_config(tmp_path, f"dataset.path={link}", "dataset.seed=1")).reused
        again = build_dataset([file], toy_config(tmp_path, f"dataset.path={link}", "dataset.seed=2"))
        assert (again.dataset, link.is_symlink()) == (str(tmp_path / "dataset.duckdb"), True)
        assert [path.name for path in link.parent.iterdir()] == ["d.duckdb"]
    link = tmp_path / "loop.duckdb"
    link.symlink_to(link)
    with pytest.raises(UserError, match=r"loop\.duckdb: cannot follow the symbolic link"):
        build_dataset([file], toy_config(tmp_path, f"dataset.path={link}"))


def test_file_names_that_are_not_utf8_are_named(tmp_path):
    file = tmp_path / os.fsdecode(b"\xff.tsv")
    file.write_text(GOOD)
    for names in ([str(file)], [str(tmp_path / "*.tsv")]):
        with pytest.raises(UserError, match=r"udcff.tsv': the file name is not UTF-8; fix: rename"):
            build_dataset(names, toy_config(tmp_path))
    config = toy_config(tmp_path)
    path = str(tmp_path / os.fsdecode(b"\xff.duckdb"))
    config = config.model_copy(update={"dataset": config.dataset.model_copy(update={"path": path})})
    with pytest.raises(UserError, match=r"udcff.duckdb': the file name is not UTF-8"):
        build_dataset([write(tmp_path / "toy.tsv", GOOD)], config)
    assert {path.name for path in tmp_path.iterdir()} == {file.name, "toy.tsv"}
    (tmp_path / "link.duckdb").symlink_to(path)
    with pytest.raises(UserError, match=r"udcff.duckdb': the file name is not UTF-8"):
        build_dataset([str(tmp_path / "toy.tsv")], toy_config(tmp_path, f"dataset.path={tmp_path}/link.duckdb"))
    with pytest.raises(UserError, match=r"udcff.tsv': the file name is not UTF-8"):
        build_dataset(["http://127.0.0.1:9/" + file.name], toy_config(tmp_path))


def test_all_outputs_are_flushed_before_the_first_is_renamed(tmp_path, monkeypatch):
    flushed = []
    monkeypatch.setattr(workspace, "flush_to_disk", lambda path: flushed.append(path.name))
    replace = workspace.replace_folder

    def check(new, target):
        names = ["dataset.duckdb", ".dataset.rejects.parquet.partial", *(path.name for path in new.iterdir())]
        assert sorted(flushed) == sorted(names)
        replace(new, target)

    monkeypatch.setattr(workspace, "replace_folder", check)
    build_dataset([write(tmp_path / "toy.tsv", GOOD)], toy_config(tmp_path))
    assert len(flushed) == 5


@pytest.mark.parametrize("missing", ["predictions", "metrics", "shards"])
def test_runs_of_a_dataset_without_all_relations_are_kept(tmp_path, missing):
    """Built by a version that had fewer relations."""
    config = toy_config(tmp_path)
    build_dataset([write(tmp_path / "toy.tsv", GOOD)], config)
    record_runs(config.dataset.path, "first")
    with open_dataset(config.dataset.path, read_only=False) as connection:
        connection.execute(f"drop table {missing}")
    with pytest.raises(UserError, match=r"would lose 1 recorded run \(first\), rows of"):
        build_dataset([write(tmp_path / "other.tsv", GOOD + line("ACGT", 5))], config)
    build_dataset([write(tmp_path / "moved.tsv", GOOD)], config)
    with open_dataset(config.dataset.path) as connection:
        assert connection.execute("select run from runs").fetchall() == [("first",)]


def test_views_of_a_dataset_read_no_other_files(tmp_path):
    config = toy_config(tmp_path)
    build_dataset([write(tmp_path / "toy.tsv", GOOD)], config)
    secret = tmp_path / "secret.csv"
    secret.write_text("run\nsecret\n")
    connection = duckdb.connect(config.dataset.path)
    connection.execute(f"drop table runs; create view runs as from read_csv('{secret}')")
    connection.close()
    with pytest.raises(UserError, match="file system operations are disabled"):
        run_query(config.dataset.path, "from runs", "json", tmp_path / "out.json")
    before = Path(config.dataset.path).read_bytes()
    with pytest.raises(UserError, match="file system operations are disabled"):
        build_dataset([write(tmp_path / "moved.tsv", GOOD)], config, replace=True)
    assert Path(config.dataset.path).read_bytes() == before
    run_query(config.dataset.path, f"from read_csv('{secret}')", "json", tmp_path / "out.json")
    assert "secret" in (tmp_path / "out.json").read_text()


def test_tables_in_another_schema_are_not_lost(tmp_path):
    config = toy_config(tmp_path)
    toy = write(tmp_path / "toy.tsv", GOOD)
    build_dataset([toy], config)
    with open_dataset(config.dataset.path, read_only=False) as connection:
        connection.execute("create schema mine; create table mine.runs as select 1 as run")
    with pytest.raises(UserError, match=r"holds mine\.runs, which would be lost"):
        build_dataset([toy], config, replace=True)
