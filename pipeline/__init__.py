"""Rows in files -> DuckDB dataset -> k-mer shards -> batches. Knows nothing of the model.

The public API is imported from here; each name loads its module on first use.
"""

from typing import TYPE_CHECKING

from pipeline.runtime.lazy import lazy_names

if TYPE_CHECKING:
    from pipeline.config.loader import load_data_config as load_data_config
    from pipeline.config.schema import DataConfig as DataConfig
    from pipeline.dataset.build import build_dataset as build_dataset
    from pipeline.dataset.database import open_dataset as open_dataset
    from pipeline.errors import UserError as UserError
    from pipeline.shards.index import read_index as read_index
    from pipeline.shards.verify import verify_shards as verify_shards
    from pipeline.shards.write import write_shards as write_shards
    from pipeline.stream.stream import ShardStream as ShardStream
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "DataConfig": "pipeline.config.schema",
            "ShardStream": "pipeline.stream.stream",
            "UserError": "pipeline.errors",
            "build_dataset": "pipeline.dataset.build",
            "load_data_config": "pipeline.config.loader",
            "open_dataset": "pipeline.dataset.database",
            "read_index": "pipeline.shards.index",
            "verify_shards": "pipeline.shards.verify",
            "write_shards": "pipeline.shards.write",
        },
    )
