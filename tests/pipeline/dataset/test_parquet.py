import shutil
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.dataset.build import build_dataset
from pipeline.dataset.database import open_dataset
from pipeline.dataset.workspace import PARQUET_COLUMNS
from pipeline.errors import UserError
from tests.pipeline.dataset.toy_dataset import BARE, GOOD, OUTPUTS, PARQUET_ROWS, toy_config, write


@pytest.mark.parametrize("train", ["all", "4"])
@pytest.mark.parametrize("text", [GOOD + "bad\n", BARE])
def test_parquet_holds_each_promoter_once(tmp_path, train, text):
    """The folder is one table; each file is a split in the order of position; rejects are beside it."""
    built = build_dataset([write(tmp_path / "toy.tsv", text)], toy_config(tmp_path, f"dataset.finetune_train={train}"))
    table = pq.read_table(built.parquet)
    assert table.column_names == PARQUET_COLUMNS
    with open_dataset(built.dataset) as connection:
        rows = connection.execute(PARQUET_ROWS).fetchall()
        rejects = connection.execute("from rejects").fetchall()
    assert sorted(tuple(row.values()) for row in table.to_pylist()) == rows
    assert sorted(duckdb.sql(f"from '{built.parquet}/*.parquet'").fetchall()) == rows
    splits = {row[3] or "unused" for row in rows}
    assert {path.stem for path in Path(built.parquet).iterdir()} == splits
    for split in splits:
        part = pq.read_table(f"{built.parquet}/{split}.parquet").to_pylist()
        assert [tuple(row.values()) for row in part] == [row for row in rows if (row[3] or "unused") == split]
    table = pq.read_table(tmp_path / "dataset.rejects.parquet")
    assert [tuple(row.values()) for row in table.to_pylist()] == rejects


@pytest.mark.parametrize(
    ("text", "train", "rows"),
    [
        (GOOD, "all", {"train": 7, "validation": 3, "test": 2}),
        (GOOD, "4", {"train": 4, "validation": 3, "test": 2}),
        (BARE, "all", {"test": 12}),
    ],
)
def test_hugging_face_loads_the_parquet_with_its_splits(tmp_path, text, train, rows):
    datasets = pytest.importorskip("datasets", reason="the library datasets is not installed")
    built = build_dataset([write(tmp_path / "toy.tsv", text)], toy_config(tmp_path, f"dataset.finetune_train={train}"))
    loaded = datasets.load_dataset("parquet", data_dir=built.parquet, cache_dir=str(tmp_path / "cache"))
    assert {name: part.num_rows for name, part in loaded.items()} == rows
    assert loaded["test"].column_names == PARQUET_COLUMNS


def test_the_parquet_of_an_earlier_version_is_replaced(tmp_path):
    file = write(tmp_path / "toy.tsv", GOOD)
    config = toy_config(tmp_path)
    built = build_dataset([file], config)
    shutil.rmtree(built.parquet)
    Path(tmp_path / "dataset.rejects.parquet").unlink()
    for name in ("finetune/train", "pretrain/valid", "rejects"):
        path = Path(built.parquet, f"{name}.parquet")
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"id": [1]}), path)
    assert not build_dataset([file], config).reused
    assert {path.name for path in Path(built.parquet).iterdir()} == {"train.parquet", "valid.parquet", "test.parquet"}
    assert build_dataset([file], config).reused


def test_user_file_beside_the_parquet_is_kept(tmp_path):
    file = write(tmp_path / "toy.tsv", GOOD)
    mine = Path(build_dataset([file], toy_config(tmp_path)).parquet) / "mine.parquet"
    shutil.copy(mine.with_name("train.parquet"), mine)
    with pytest.raises(UserError, match="is not the Parquet of a dataset"):
        build_dataset([file], toy_config(tmp_path, "dataset.seed=1"))
    assert mine.exists()


@pytest.mark.parametrize("renames", [0, 1, 2, 3])
def test_build_killed_between_two_renames_is_repeated(tmp_path, monkeypatch, renames):
    """Parquet of another source than the database's is rebuilt, whichever of the two is built next."""
    file = write(tmp_path / "toy.tsv", GOOD + "bad\n")
    config, other = toy_config(tmp_path), toy_config(tmp_path, "dataset.seed=1")
    build_dataset([file], config)
    left = renames

    def dying(self, target, rename):
        nonlocal left
        if left == 0:
            raise SystemExit  # no clean-up of a later line is reached
        left -= 1
        return rename(self, target)

    with monkeypatch.context() as patch:
        for name in ("rename", "replace"):
            rename = getattr(Path, name)
            patch.setattr(Path, name, lambda self, target, rename=rename: dying(self, target, rename))
        with pytest.raises(SystemExit):
            build_dataset([file], other)
    for settings in (config, other):
        built = build_dataset([file], settings)
        with open_dataset(built.dataset) as connection:
            rows = connection.execute(PARQUET_ROWS).fetchall()
        assert sorted(tuple(row.values()) for row in pq.read_table(built.parquet).to_pylist()) == rows
        assert {path.name for path in tmp_path.iterdir()} == {"toy.tsv", *OUTPUTS}
