"""What comes after the build is put into the dataset, too, so that SQL reaches it: shards, records, runs, metrics,
predictions. Each call replaces what stood there under the same k or run name, in one transaction."""

from dataclasses import asdict
from typing import Any

import duckdb
import pyarrow as pa

from pipeline.dataset.database import explain, reading, rows_of, writing
from pipeline.errors import UserError
from pipeline.shards.index import Index


def publish_shards(dataset: str, folder: str, index: Index) -> None:
    """Relations `shards` and `records`; nothing is written where they hold these shards already.

    folder: that of the index, or its URL.
    """
    with reading(dataset) as connection:
        there = connection.execute("select file, sha256 from shards where k = ? order by all", [index.k]).fetchall()
    shards: list[dict[str, Any]] = []
    records: list[dict[str, Any]] = []
    for split, entries in index.splits.items():
        stage, part = split.split("/")
        position, number = 0, 0
        for shard, entry in enumerate(entries):
            place = {"k": index.k, "stage": stage, "split": part, "shard": shard}
            shards.append(
                {
                    **place,
                    "file": f"{folder}/{entry.file}",
                    "records": len(entry.records),
                    "first_position": position,
                    "rows": entry.rows,
                    "bytes": entry.bytes,
                    "sha256": entry.sha256,
                }
            )
            for record in entry.records:
                records.append({**place, "record": number, "first_position": position, **asdict(record)})
                position += record.rows
                number += 1
    if there == sorted((shard["file"], shard["sha256"]) for shard in shards):
        return
    tables = {"shards": pa.Table.from_pylist(shards), "records": pa.Table.from_pylist(records)}
    _replace(dataset, "k", index.k, tables)


def publish_run(
    dataset: str, run: str, facts: dict[str, Any], metrics: list[dict[str, Any]], predictions: pa.Table
) -> None:
    """Relations `runs`, `metrics` and `predictions`; nothing is written where they hold this very run already.

    facts: the columns of `runs` but the first; finished, a time, tells two runs of the same name apart.
    """
    with reading(dataset) as connection:
        if rows_of(connection, "from runs where run = ? and finished = ?", [run, facts["finished"]]):
            return
    tables = {
        "runs": pa.Table.from_pylist([{"run": run, **facts}]),
        "metrics": pa.Table.from_pylist([{"run": run, **metric} for metric in metrics]),
        "predictions": predictions.append_column("run", pa.array([run] * predictions.num_rows)),
    }
    _replace(dataset, "run", run, tables)


def _replace(dataset: str, column: str, value: int | str, tables: dict[str, pa.Table]) -> None:
    with writing(dataset) as connection:
        try:
            connection.execute("begin")
            for table, rows in tables.items():
                connection.execute(f"delete from {table} where {column} = ?", [value])
                connection.register("new_rows", rows)
                connection.execute(f"insert into {table} by name select * from new_rows")
                connection.unregister("new_rows")
            connection.execute("commit")
        except (duckdb.BinderException, duckdb.CatalogException):
            raise UserError(f"{dataset} was built by another version of promoter-bert; build it again") from None
        except duckdb.Error as error:
            raise explain(error) from None
