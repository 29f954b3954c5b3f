"""Shared by the model commands: the help of an argument, and the whole configuration."""

from pathlib import Path
from typing import Any

import typer

from model.config import Config
from pipeline.cli import options as data_options

MODEL_FOLDER = "Run directory, runs/NAME, or its model folder, runs/NAME/model."


def configuration(context: typer.Context, path: Path, **options: Any) -> Config:
    """Load the whole configuration; see pipeline.cli.options.configuration."""
    config = data_options.configuration(context, path, **options)
    assert isinstance(config, Config)
    return config
