"""Publication of an index in the dataset, as relations `shards` and `records`."""

from dataclasses import asdict
from typing import Any

import pyarrow as pa

from pipeline.dataset.database import open_dataset
from pipeline.dataset.results import replace_rows
from pipeline.shards.index import Index


def publish_shards(dataset: str, folder: str, index: Index) -> None:
    """Write relations `shards` and `records` of a dataset, unless they list these shards already.

    folder: folder or URL of the index. Raises UserError if the dataset cannot be written.
    """
    with open_dataset(dataset) as connection:
        published = connection.execute("select file, sha256 from shards where k = ? order by all", [index.k]).fetchall()
    shards: list[dict[str, Any]] = []
    records: list[dict[str, Any]] = []
    for split, entries in index.splits.items():
        stage, part = split.split("/")
        position, number = 0, 0
        for shard, entry in enumerate(entries):
            columns = {"k": index.k, "stage": stage, "split": part, "shard": shard}
            file = {"file": f"{folder}/{entry.file}", "rows": entry.rows, "bytes": entry.bytes, "sha256": entry.sha256}
            shards.append({**columns, **file, "records": len(entry.records), "first_position": position})
            for record in entry.records:
                records.append({**columns, "record": number, "first_position": position, **asdict(record)})
                position, number = position + record.rows, number + 1
    if published == sorted((shard["file"], shard["sha256"]) for shard in shards):
        return
    tables = {"shards": pa.Table.from_pylist(shards), "records": pa.Table.from_pylist(records)}
    replace_rows(dataset, "k", index.k, tables)
