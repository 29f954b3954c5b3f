"""What the model commands read of a command line beside their own options."""

from pathlib import Path
from typing import Any

import typer

from model.config import Config
from pipeline.cli import options as data_options
from pipeline.cli.command_types import Invocation

MODEL_FOLDER = "Run directory, runs/NAME, or its model folder, runs/NAME/model."


def configuration(context: typer.Context, path: Path, **options: Any) -> Config:
    """Load the whole configuration; see pipeline.cli.options.configuration."""
    config = data_options.configuration(context, path, **options)
    assert isinstance(config, Config)
    return config


def overrides(context: typer.Context) -> tuple[str, ...]:
    """The `section.key=value` words of the command line."""
    invocation: Invocation = context.obj
    return invocation.overrides
