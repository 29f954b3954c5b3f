"""The settings that a dataset was built with, and what came later: what stands in the dataset holds."""

import json
from typing import Any, TypeVar

from pipeline.config.schema import DataConfig
from pipeline.dataset.database import DatasetInfo
from pipeline.errors import UserError

C = TypeVar("C", bound=DataConfig)


def dataset_settings(config: DataConfig) -> dict[str, dict[str, Any]]:
    """The settings that a dataset depends on."""
    return {"assay": config.assay.model_dump(exclude={"flank"}), "dataset": config.dataset.model_dump(exclude={"path"})}


def as_built(config: C, info: DatasetInfo) -> C:
    """The configuration with the settings that the dataset was built with, whatever the config file says by now.

    Raises UserError where one was given otherwise on the command line, as it would have no effect, and where the
    config is of another construct than the dataset.
    """
    for name in ("left_adapter", "right_adapter", "upstream", "downstream"):
        built_with, asked = getattr(info, name), getattr(config.assay, name)
        if built_with != asked:
            raise UserError(
                f"assay.{name} is {asked!r}, but {config.dataset.path} was built with {built_with!r}; build it again"
            )
    if info.settings is None:  # built by hand
        return config
    built = json.loads(info.settings)
    for section, asked in dataset_settings(config).items():
        for name, value in asked.items():
            if value != built[section][name] and config.was_overridden(f"{section}.{name}"):
                raise UserError(
                    f"{section}.{name} is {_plain(value)}, but {config.dataset.path} was built with "
                    f"{_plain(built[section][name])}; {_another_dataset(config)}"
                )
    assay = config.assay.model_copy(update=built["assay"])
    return config.model_copy(update={"assay": assay, "dataset": config.dataset.model_copy(update=built["dataset"])})


def _plain(value: Any) -> Any:
    """A size is a float, be it a number of rows."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _another_dataset(config: DataConfig) -> str:
    """What to type to have another dataset with the settings given, and its shards, beside the one there is."""
    given = [word for word in config.command_line_words("assay", "dataset") if not word.startswith("dataset.path=")]
    place = "dataset.path=other.duckdb"
    return (
        f"for another dataset: {' '.join(['promoter-bert build FILES', *given, place])}, then promoter-bert shards and "
        f"train.py with {place} shards.path=other-shards"
    )
