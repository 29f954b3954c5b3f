"""Options that several commands share, the configuration that they choose, and the printing of results."""

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.cli.command_types import Invocation
from pipeline.config.loader import load_config
from pipeline.config.schema import DataConfig

INPUT_FILES = ".tsv, .csv, .txt, .fasta, .jsonl (also .gz, .zst, .bz2, .xz, .zip), .parquet or .arrow"
TABLE_FILES = INPUT_FILES.replace(" .fasta,", "")

ConfigFile = Annotated[
    Path,
    typer.Option("--config", help="Configuration file. [default: the project's config.yaml]", show_default=False),
]
DatasetFile = Annotated[
    Path | None, typer.Option("--dataset", help="DuckDB file. [default: dataset.path of the config]")
]
SequenceColumn = Annotated[
    str | None, typer.Option(help="Sequence column: its name, or its number from 1. [default: detected]")
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def configuration(context: typer.Context, path: Path, **options: Any) -> DataConfig:
    """Load a config file with the overrides of the command line.

    options: the command's own options by key, `dataset__path` for dataset.path; None keeps the value of the file.
    """
    invocation: Invocation = context.obj
    values = {key.replace("__", "."): value for key, value in options.items() if value is not None}
    settings = [f"{key}={_format_value(value)}" for key, value in values.items()]
    return load_config(path, [*invocation.overrides, *settings], invocation.schema)


def _format_value(value: Any) -> str:
    """Format a value of an override, which errors may show: a plain name as it is, anything else as JSON."""
    plain = isinstance(value, str | Path) and re.fullmatch(r"[\w./][\w./-]*", str(value))
    return str(value) if plain else json.dumps(value, default=str)


def print_result(result: Any, as_json: bool, lines: list[str]) -> None:
    """Print a result: as JSON for a script, as lines for a person. result: a dictionary or a dataclass."""
    values = result if isinstance(result, dict) else asdict(result)
    print(json.dumps(values, default=str) if as_json else "\n".join(lines))
