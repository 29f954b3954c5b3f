"""The result of a build: sizes, rejects and repairs, as read from the dataset."""

from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import duckdb

from pipeline.dataset.database import DatasetInfo, dataset_info, open_dataset, row_count, rows_of
from pipeline.dataset.workspace import parquet_folder
from pipeline.errors import UserError


@dataclass(frozen=True)
class BuildResult:
    """A dataset that `build_dataset` made or kept."""

    dataset: str
    parquet: str
    info: DatasetInfo
    rejects: dict[str, int]
    """Rows by reason."""
    repairs: dict[str, int]
    """Promoters by the assay's setting that repaired them."""
    held_out_pretrained: int
    """Promoters held out from fine-tuning that are in pretraining's train split."""
    runs_left_out: int = 0
    """Runs of the replaced dataset, trained on other rows or splits."""
    layout: dict[str, Any] | None = None
    """The layout of text or FASTA; None for Parquet and for an existing dataset."""
    was_there: bool = False
    """Whether the dataset existed, built from the same files and settings."""

    def as_dict(self) -> dict[str, Any]:
        """Return the values for --json, without the flanks."""
        values = asdict(self)
        info = values.pop("info")
        del info["upstream"], info["downstream"]
        return {**info, **values}


def read_result(connection: duckdb.DuckDBPyConnection, target: Path, was_there: bool = False) -> BuildResult:
    """Read the result of a build from the dataset at an open connection."""
    by_count = "group by reason order by count(*) desc, reason"
    held_out = "(select finetune_test_rows + finetune_valid_rows from dataset)"
    return BuildResult(
        str(target),
        str(parquet_folder(target)),
        dataset_info(connection),
        rejects=dict(rows_of(connection, f"select reason, count(*) from rejects {by_count}")),
        repairs=dict(rows_of(connection, 'select rule, "rows" from repairs order by all')),
        held_out_pretrained=row_count(connection, f"pretrain where split = 'train' and id < {held_out}"),
        was_there=was_there,
    )


def existing_result(target: Path, source: str | None) -> BuildResult | None:
    """Read the existing dataset at the target; None if it is incomplete or of another source."""
    if source is not None and target.exists() and parquet_folder(target).is_dir():
        with suppress(UserError, duckdb.Error), open_dataset(target) as connection:
            if rows_of(connection, "select source from dataset") == [(source,)]:
                return read_result(connection, target, was_there=True)
    return None
