import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from pipeline.dataset.build import build_dataset
from pipeline.dataset.database import open_dataset
from pipeline.errors import UserError
from tests.pipeline.dataset.toy_dataset import GOOD, toy_config, write


@pytest.mark.parametrize(
    ("files", "names", "dataset", "message"),
    [
        ({"rows.tsv": GOOD}, ["rows.tsv"], "rows.tsv", "expected a name ending in .duckdb"),
        ({"a.duckdb": GOOD, "rows.tsv": GOOD}, ["rows.tsv"], "a.duckdb", "exists but is not a DuckDB file"),
        ({"a.parquet/mine.txt": "x", "rows.tsv": GOOD}, ["rows.tsv"], "a.duckdb", "is not the Parquet of a dataset"),
        ({"a.parquet/train.parquet": "x", "rows.tsv": GOOD}, ["rows.tsv"], "a.duckdb", "not the Parquet of a dataset"),
        ({"a.parquet/mine.parquet": "x"}, ["a.parquet/mine.parquet"], "a.duckdb", "would replace an input file"),
        ({"a.parquet": "x"}, ["a.parquet"], "a.duckdb", "would replace an input file"),
        ({"a.rejects.parquet": "x", "rows.tsv": GOOD}, ["rows.tsv"], "a.duckdb", "does not hold the rejects"),
        ({"a.parquet": "x", "rows.tsv": GOOD}, ["rows.tsv"], "a.duckdb", "is not the Parquet of a dataset"),
    ],
)
def test_build_overwrites_no_user_file(tmp_path, monkeypatch, files, names, dataset, message):
    monkeypatch.chdir(tmp_path)
    for name, text in files.items():
        Path(name).parent.mkdir(exist_ok=True)
        write(Path(name), text)
    with pytest.raises(UserError, match=message):
        build_dataset(names, toy_config(tmp_path, f"dataset.path={dataset}"))
    assert {name: Path(name).read_text() for name in files} == files
    assert {str(path) for path in Path().iterdir()} == {name.partition("/")[0] for name in files}


@pytest.mark.parametrize("ours", [True, False])
def test_tables_of_the_users_are_not_lost(tmp_path, ours):
    file = write(tmp_path / "toy.tsv", GOOD)
    config = toy_config(tmp_path)
    if ours:
        build_dataset([file], config)
    with duckdb.connect(config.dataset.path) as connection:
        connection.execute("create table mine as select 1 as x")
    with pytest.raises(UserError, match=r"exists and holds mine, which would be lost"):
        build_dataset([file], toy_config(tmp_path, "dataset.seed=1"))
    with duckdb.connect(config.dataset.path) as connection:
        assert connection.execute("from mine").fetchall() == [(1,)]


def test_leftovers_of_a_killed_writer_do_not_enter_the_next_dataset(tmp_path):
    config = toy_config(tmp_path)
    build_dataset([write(tmp_path / "toy.tsv", GOOD)], config)
    code = f"""if True:
        import duckdb, os
        connection = duckdb.connect({config.dataset.path!r})
        connection.execute("insert into runs (run) values ('ghost')")
        os._exit(0)"""
    subprocess.run([sys.executable, "-c", code], check=True)
    assert Path(f"{config.dataset.path}.wal").exists()
    other = toy_config(tmp_path, "dataset.seed=5")
    with pytest.raises(UserError, match=r"would lose 1 recorded run \(ghost\); fix: .*--replace"):
        build_dataset([str(tmp_path / "toy.tsv")], other)
    build_dataset([str(tmp_path / "toy.tsv")], other, replace=True)
    with open_dataset(other.dataset.path) as connection:
        assert connection.execute("select run from runs").fetchall() == []
    assert not Path(f"{config.dataset.path}.wal").exists()
