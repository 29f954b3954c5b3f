"""Options that several commands share, the configuration that they choose, and the printing of results."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.cli.command_types import Invocation
from pipeline.config.loader import load_config
from pipeline.config.schema import DataConfig

INPUT_FILES = ".tsv, .csv, .txt, .fasta (also .gz, .zst) or .parquet"

ConfigFile = Annotated[Path, typer.Option("--config", help="Configuration file.")]
DatasetFile = Annotated[
    Path | None, typer.Option("--dataset", help="DuckDB file [default: dataset.path of the config].")
]
SequenceColumn = Annotated[
    str | None, typer.Option(help="Sequence column: its name, or its number from 1 [default: detected].")
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def configuration(context: typer.Context, path: Path, **options: Any) -> DataConfig:
    """Load a config file with the overrides of the command line.

    options: values of the command's own options by key, `dataset__path` for dataset.path; None where not given.
    """
    invocation: Invocation = context.obj or Invocation()
    words = [f"{key.replace('__', '.')}={json.dumps(value)}" for key, value in options.items() if value is not None]
    return load_config(path, [*invocation.overrides, *words], invocation.schema)


def text_of(path: Path | None) -> str | None:
    """The text of an optional path."""
    return None if path is None else str(path)


def print_result(result: dict[str, Any], as_json: bool, lines: list[str]) -> None:
    """Print a result for a script or for a person."""
    print(json.dumps(result, default=str) if as_json else "\n".join(lines))
