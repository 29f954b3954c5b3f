"""Read the settings that a dataset was built with, and hash the source of a build."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

from pipeline.config.schema import DataConfig, Section
from pipeline.dataset.database import DatasetInfo
from pipeline.dataset.input.files import Input
from pipeline.errors import UserError
from pipeline.paths import SQL
from pipeline.runtime.text import plain_number

C = TypeVar("C", bound=DataConfig)


def dataset_settings(config: DataConfig) -> dict[str, dict[str, Any]]:
    """Select the settings that a dataset depends on."""
    return {"assay": config.assay.model_dump(exclude={"flank"}), "dataset": config.dataset.model_dump(exclude={"path"})}


def source_hash(
    names: list[str],
    source: Input,
    config: DataConfig,
    split_files: Mapping[str, list[str]] | None = None,
    design: Input | None = None,
) -> str:
    """Hash all that a dataset depends on: files by size and modification time, layout, settings and SQL."""
    stats = [(Path(file).resolve(), Path(file).stat()) for file in (*source.files, *(design.files if design else ()))]
    files = [(str(path), stat.st_size, stat.st_mtime_ns) for path, stat in stats]
    statements = [path for path in SQL.rglob("*.sql") if path.parent.name not in ("audits", "queries")]
    texts = {str(path.relative_to(SQL)): path.read_text(encoding="utf-8") for path in statements}
    parts = [names, files, asdict(replace(source, stream=None)), dataset_settings(config), texts, split_files]
    parts += [asdict(replace(design, stream=None))] if design else []
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def as_built(config: C, info: DatasetInfo) -> C:
    """Replace the settings of a config by those that the dataset was built with.

    Raises UserError if an override on the command line differs from them, because it would have no effect. Raises it
    too if adapters or plasmid sequences of the config differ.
    """
    for name in ("left_adapter", "right_adapter", "upstream", "downstream"):
        built_with, requested = getattr(info, name), getattr(config.assay, name)
        if built_with != requested:
            problem = f"assay.{name} is {requested!r}, but {config.dataset.path} was built with {built_with!r}"
            raise UserError(f"{problem}; fix: build it again: {config.build_command}")
    if info.settings is None:  # built by hand
        return config
    built = json.loads(info.settings)
    recorded = {
        "assay": _with_later_settings(config.assay, built["assay"]),
        "dataset": _with_later_settings(config.dataset, built["dataset"]),
    }
    for section, values in recorded.items():
        for name, value in getattr(config, section):
            if name in values and value != values[name] and config.was_overridden(f"{section}.{name}"):
                built_with = plain_number(values[name])
                problem = (
                    f"{section}.{name} is {plain_number(value)}, but {config.dataset.path} was built with {built_with}"
                )
                raise UserError(f"{problem}; {_another_dataset(config)}")
    sections = {name: getattr(config, name).model_copy(update=values) for name, values in recorded.items()}
    return config.model_copy(update=sections)


def _with_later_settings(section: Section, recorded: dict[str, Any]) -> dict[str, Any]:
    """Add the defaults of settings that a dataset does not record; see Section.LATER_SETTINGS."""
    return {**{name: type(section).model_fields[name].default for name in section.LATER_SETTINGS}, **recorded}


def _another_dataset(config: DataConfig) -> str:
    """Suggest the commands that build a second dataset with the overrides, and its shards."""
    arguments = config.format_arguments("assay", "dataset")
    overrides = [argument for argument in arguments if not argument.startswith("dataset.path=")]
    path = "dataset.path=other.duckdb"
    settings = " ".join([*overrides, path])
    return (
        f"for another dataset: promoter-bert build FILES {settings}, then promoter-bert shards and train.py with "
        f"{settings} shards.path=other-shards"
    )
