"""Minus zero is zero: datasets with the same key have the same bytes."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.dataset.build import build_dataset
from pipeline.dataset.database import open_dataset
from pipeline.shards.location import shard_folder
from pipeline.shards.write import write_shards
from tests.pipeline.dataset.toy_dataset import TOY, L, R, toy_config, write


def rows_with(zero):
    return [(f"{L}{insert}{R}", zero if label == 0 else str(float(label))) for insert, label in TOY]


def shards_of(tmp_path, name, zero, *overrides):
    folder = tmp_path / f"{name}{zero}"
    folder.mkdir()
    rows = rows_with(zero)
    if name.endswith(".parquet"):
        table = pa.table({"sequence": [s for s, _ in rows], "expression": [float(e) for _, e in rows]})
        pq.write_table(table, folder / name)
    elif name.endswith(".fa"):
        write(folder / name, "".join(f">x expression={e}\n{s}\n" for s, e in rows))
    else:
        write(folder / name, "".join(f"{s}\t{e}\n" for s, e in rows))
    config = toy_config(folder, *overrides)
    key = build_dataset([str(folder / name)], config).info.key
    write_shards(config)
    with open_dataset(config.dataset.path) as connection:
        signs = connection.execute("select count(*) from promoters where signbit(expression)").fetchall()
    return key, signs, {path.name: path.read_bytes() for path in sorted(shard_folder(config).rglob("*.tar"))}


@pytest.mark.parametrize("name", ["a.tsv", "a.parquet", "a.fa"])
@pytest.mark.parametrize("overrides", [(), ("dataset.duplicates=average",)])
def test_minus_zero_is_zero(tmp_path, name, overrides):
    plain = shards_of(tmp_path, name, "0.0", *overrides)
    assert plain == shards_of(tmp_path, name, "-0.0", *overrides)
    assert plain[1] == [(0,)]
    assert len(plain[2]) > 0
