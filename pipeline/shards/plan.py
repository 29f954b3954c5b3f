"""Plan of the shards: the rows of the dataset per shard and record, before anything is written."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import duckdb

from pipeline.config.schema import DataConfig
from pipeline.dataset.database import dataset_info, rows_of
from pipeline.dataset.rows.names import quoted
from pipeline.errors import UserError
from pipeline.tokens.kmers import id_dtype

SPLITS = ("pretrain/train", "pretrain/valid", "finetune/train", "finetune/valid", "finetune/test")
ROW_OVERHEAD = 16
"""Bytes per promoter in addition to its tokens: offset, label, id."""
LABEL_BYTES = 4
"""Bytes per promoter of each further label."""


def select_splits(stage: str | None = None, part: str | None = None) -> list[str]:
    """Select the splits of a stage, of a part such as test, or of both; None selects all.

    Raises UserError if there are none.
    """
    splits = [split for split in SPLITS if stage in (None, split.split("/")[0]) and part in (None, split.split("/")[1])]
    if not splits:
        raise UserError(f"no split {stage or '*'}/{part or '*'}; expected one of {', '.join(SPLITS)}")
    return splits


@dataclass(frozen=True)
class ShardTask:
    """One shard to write. Its rows have ids from first_id to last_id, in the order of their positions.

    number: of the shard in its split, from 0; first_record: number of its first record in the split.
    """

    split: str
    number: int
    first_record: int
    first_id: int
    last_id: int
    at_or_above: float | None
    """Lowest expression of its rows; None for no limit."""
    rows: int

    @property
    def file(self) -> str:
        """Name the file, relative to the index."""
        return f"{self.split}-{self.number:06d}.tar"


def plan_shards(
    connection: duckdb.DuckDBPyConnection, config: DataConfig, splits: Sequence[str] = SPLITS
) -> list[ShardTask]:
    """Plan the shards of some splits. The shards of one split differ by at most one record."""
    assay, size = config.assay, config.shards.record_promoters
    info = dataset_info(connection)
    ((bases,),) = rows_of(connection, "select avg(length(sequence)) from promoters")
    extended = float(bases) - len(assay.left_adapter) - len(assay.right_adapter) + 2 * assay.flank
    more_labels = LABEL_BYTES * max(len(info.labels) - 1, 0)
    mean_bytes = ROW_OVERHEAD + more_labels + extended * id_dtype(config.shards.k).itemsize
    records_per_shard = config.shards.shard_megabytes * 1e6 / mean_bytes / size
    cut = info.cut
    tasks: list[ShardTask] = []
    for split in splits:
        stage, part = split.split("/")
        ((rows, last_id),) = rows_of(connection, f"select count(*), max(id) from {stage} where split = ?", [part])
        if not rows:
            continue
        records = -(-rows // size)
        shards = min(max(round(records / records_per_shard), 1), records)
        bounds = [records * shard // shards * size for shard in range(shards)]
        query = f"select id from {stage} where split = ? and list_contains(?::bigint[], position) order by position"
        first_ids = [first for (first,) in rows_of(connection, query, [part, bounds])]
        ranges = zip(pairwise([*bounds, rows]), pairwise([*first_ids, last_id + 1]), strict=True)
        tasks += [
            ShardTask(
                split=split,
                number=number,
                first_record=start // size,
                first_id=first_id,
                last_id=next_id - 1,
                at_or_above=cut if stage == "pretrain" else None,
                rows=end - start,
            )
            for number, ((start, end), (first_id, next_id)) in enumerate(ranges)
        ]
    return tasks


def compute_label_scale(connection: duckdb.DuckDBPyConnection) -> tuple[float, float] | tuple[list[float], list[float]]:
    """Compute mean and population standard deviation of the fine-tuning training labels; 0 and 1 if there are none.

    With several labels: one of both per label, over its rows that are not missing. All are rounded to six decimals, so
    that they do not depend on the order of summation.
    """
    names = dataset_info(connection).several_labels
    moments = [
        f"coalesce(round(avg({name}), 6), 0), coalesce(round(stddev_pop({name}), 6), 1)"
        for name in (map(quoted, names) if names else ["expression"])
    ]
    (row,) = rows_of(connection, f"select {', '.join(moments)} from finetune where split = 'train'")
    means, sds = list(map(float, row[::2])), list(map(float, row[1::2]))
    return (means, sds) if names else (means[0], sds[0])
