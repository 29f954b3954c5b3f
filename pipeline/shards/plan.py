"""Which rows of the dataset go into which shard and record: computed before anything is written."""

from collections.abc import Sequence
from dataclasses import dataclass

import duckdb

from pipeline.config.schema import DataConfig
from pipeline.dataset.database import dataset_info, rows_of
from pipeline.errors import UserError
from pipeline.tokens.kmers import id_dtype

SPLITS = ("pretrain/train", "pretrain/valid", "finetune/train", "finetune/valid", "finetune/test")
ROW_OVERHEAD = 16
"""Bytes a promoter beside its tokens: offset, label, id."""


def splits_of(stage: str | None = None, part: str | None = None) -> list[str]:
    """The splits of a stage, or of a part such as test, or all. Raises UserError where there are none."""
    found = [split for split in SPLITS if stage in (None, split.split("/")[0]) and part in (None, split.split("/")[1])]
    if not found:
        raise UserError(f"no split {stage or '*'}/{part or '*'}; there are {', '.join(SPLITS)}")
    return found


@dataclass(frozen=True)
class ShardTask:
    """One shard to write: a range of ids holds its rows, in the order of their positions."""

    split: str
    number: int
    first_record: int
    first_id: int
    last_id: int
    at_or_above: float | None
    """Only rows with at least this expression belong to it; None: all."""
    rows: int

    @property
    def file(self) -> str:
        """Path below the folder of shards."""
        return f"{self.split}-{self.number:06d}.tar"


def plan_shards(
    connection: duckdb.DuckDBPyConnection, config: DataConfig, splits: Sequence[str] = SPLITS
) -> list[ShardTask]:
    """Every shard of the splits, all of a split within one record of each other in size."""
    shards = config.shards
    per_promoter = ROW_OVERHEAD + _mean_bases(connection, config) * id_dtype(shards.k).itemsize
    per_shard = shards.shard_megabytes * 1e6 / per_promoter / shards.record_promoters
    tasks = []
    for split in splits:
        stage, part = split.split("/")
        rows = _count(connection, f"select count(*) from {stage} where split = ?", part)
        records = -(-rows // shards.record_promoters)
        count = min(max(round(records / per_shard), 1), records)
        bounds = [records * i // count for i in range(count + 1)] if count else [0]
        starts = [bound * shards.record_promoters for bound in bounds[:-1]]
        first_ids = dict(
            connection.execute(
                f"select position, id from {stage} where split = ? and list_contains(?::bigint[], position)",
                [part, starts],
            ).fetchall()
        )
        last_id = _count(connection, f"select max(id) from {stage} where split = ?", part) if count else -1
        at_or_above = dataset_info(connection).cut if stage == "pretrain" else None
        for number, start in enumerate(starts):
            end = starts[number + 1] if number + 1 < count else rows
            last = first_ids[end] - 1 if number + 1 < count else last_id
            tasks.append(ShardTask(split, number, bounds[number], first_ids[start], last, at_or_above, end - start))
    return tasks


def label_scale(connection: duckdb.DuckDBPyConnection) -> tuple[float, float]:
    """Mean and population standard deviation of the fine-tuning training labels; 0 and 1 where there are none.

    Rounded to six decimals, so that the order of the sum leaves no trace.
    """
    ((mean, sd),) = rows_of(
        connection,
        "select round(avg(expression), 6), round(stddev_pop(expression), 6) from finetune where split = 'train'",
    )
    return (float(mean), float(sd)) if mean is not None else (0.0, 1.0)


def _mean_bases(connection: duckdb.DuckDBPyConnection, config: DataConfig) -> float:
    """Mean length of an extended sequence."""
    ((mean,),) = rows_of(connection, "select avg(length(sequence)) from promoters")
    assay = config.assay
    return float(mean) - len(assay.left_adapter) - len(assay.right_adapter) + 2 * assay.flank


def _count(connection: duckdb.DuckDBPyConnection, query: str, value: str) -> int:
    ((count,),) = rows_of(connection, query, [value])
    return int(count)
