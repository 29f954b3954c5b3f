"""Argument help and configuration shared by the model commands."""

from pathlib import Path
from typing import Annotated, Any

import typer

from model.config import Config
from pipeline.cli import options as data_options

MODEL_FOLDER = "Run directory runs/NAME, or its model folder runs/NAME/model."

BothStrands = Annotated[
    bool,
    typer.Option(
        "--both-strands",
        help="Predict the mean of a promoter and its reverse complement; for models fine-tuned with "
        "finetune.reverse_complement=true.",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(min=1, help="CPU processes, about 0.5 GB each. [default: one; after 10 s, one per core]"),
]
RefColumn = Annotated[
    str | None, typer.Option(help="Column of reference sequences, or of reference alleles. [default: detected]")
]
AltColumn = Annotated[
    str | None, typer.Option(help="Column of alternative sequences, or of alternative alleles. [default: detected]")
]
PositionColumn = Annotated[
    str | None,
    typer.Option(help="Column of the positions of alleles in the sequence as written. [default: detected]"),
]
FirstPosition = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=1,
        help="Position of a sequence's first base. [default: 1; 0 for a column variantPos, as IGVF tables count]",
    ),
]


def configuration(context: typer.Context, path: Path, **options: Any) -> Config:
    """Load the configuration with the sections of the model; see pipeline.cli.options.configuration."""
    config = data_options.configuration(context, path, **options)
    assert isinstance(config, Config)
    return config
