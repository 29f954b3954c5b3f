"""Argument help and configuration shared by the model commands."""

from pathlib import Path
from typing import Any

import typer

from model.config import Config
from pipeline.cli import options as data_options

MODEL_FOLDER = "Run directory runs/NAME, or its model folder runs/NAME/model."


def configuration(context: typer.Context, path: Path, **options: Any) -> Config:
    """Load the configuration with the sections of the model; see pipeline.cli.options.configuration."""
    config = data_options.configuration(context, path, **options)
    assert isinstance(config, Config)
    return config
