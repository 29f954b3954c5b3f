"""Rows in files -> DuckDB dataset -> k-mer shards -> batches. Knows nothing of the model.

The public API is imported from here; each name loads its module on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.config.loader import load_data_config
    from pipeline.config.schema import DataConfig
    from pipeline.dataset.build import build_dataset
    from pipeline.dataset.database import reading as open_dataset
    from pipeline.errors import UserError
    from pipeline.shards.index import read_index
    from pipeline.shards.verify import verify_shards
    from pipeline.shards.write import write_shards
    from pipeline.stream.stream import Stream as ShardStream

__all__ = [
    "DataConfig",
    "ShardStream",
    "UserError",
    "build_dataset",
    "load_data_config",
    "open_dataset",
    "read_index",
    "verify_shards",
    "write_shards",
]

_PLACES = {
    "DataConfig": ("pipeline.config.schema", "DataConfig"),
    "ShardStream": ("pipeline.stream.stream", "Stream"),
    "UserError": ("pipeline.errors", "UserError"),
    "build_dataset": ("pipeline.dataset.build", "build_dataset"),
    "load_data_config": ("pipeline.config.loader", "load_data_config"),
    "open_dataset": ("pipeline.dataset.database", "reading"),
    "read_index": ("pipeline.shards.index", "read_index"),
    "verify_shards": ("pipeline.shards.verify", "verify_shards"),
    "write_shards": ("pipeline.shards.write", "write_shards"),
}
"""Module and attribute of each public name."""


def __getattr__(name: str) -> Any:
    """Load a public name (PEP 562)."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _PLACES[name]
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
