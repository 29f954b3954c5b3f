"""The command baseline."""

import shlex
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Any

import typer

from model.cli.options import configuration
from pipeline.cli.options import ConfigFile, DatasetFile, Json, print_result
from pipeline.config.schema import DEFAULT_CONFIG
from pipeline.runtime.progress import emit, progress
from pipeline.runtime.text import format_count, format_interval


class Method(StrEnum):
    """Methods of promoter-bert baseline."""

    RIDGE = "ridge"
    CNN = "cnn"


UNITS = {Method.RIDGE: "steps", Method.CNN: "promoters"}
"""Unit of the progress of each method."""


def baseline(
    context: typer.Context,
    method: Annotated[
        Method, typer.Argument(help="ridge: regression on counts of 1- to 6-mers. cnn: convolutional network.")
    ],
    config: ConfigFile = DEFAULT_CONFIG,
    dataset: DatasetFile = None,
    learning_rate: Annotated[
        float | None, typer.Option(min=0, help="cnn: the highest learning rate of its cycle. [default: 0.01]")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="cnn: epochs of training. [default: by the number of rows]")
    ] = None,
    as_json: Json = False,
) -> None:
    """Train a baseline on the dataset and splits of a run.

    Writes scores and predictions to the run directory run.path/run.name-METHOD, for compare, report and queries. ridge
    reads the dataset, cnn its shards. Epochs and batch of the CNN are chosen by the number of training rows. The same
    command does not repeat a finished baseline.

    Example: promoter-bert baseline ridge --config configs/demo.yaml run.name=demo
    """
    if learning_rate is not None and method is Method.RIDGE:
        raise typer.BadParameter("ridge has no learning rate; fix: omit it", param_hint="--learning-rate")
    if epochs is not None and method is Method.RIDGE:
        raise typer.BadParameter("ridge has no epochs; fix: omit it", param_hint="--epochs")
    settings = configuration(context, config, dataset__path=dataset)
    from model.baselines.train import train_baseline  # loads torch, which takes seconds

    options = {"learning_rate": learning_rate, "epochs": epochs}
    chosen: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    with progress(f"baseline {method}", UNITS[method], quiet=as_json) as show:
        say = (lambda _: None) if as_json else emit
        summary = train_baseline(settings, method.value, emit=say, on_progress=show, **chosen)
    print_result(summary, as_json, list(describe_baseline(summary)))


def describe_baseline(summary: dict[str, Any]) -> Iterator[str]:
    """Describe the scores of a baseline, what its validation split chose, and the command that compares it."""
    yield f"{summary['directory']}: {summary['baseline']['method']}, {_describe_choice(summary['baseline'])}"
    for split, score in summary["scores"].items():
        intervals = score["intervals"]
        pearson, spearman = (format_interval(score[name], intervals.get(name)) for name in ("pearson", "spearman"))
        yield f"  {split:5}  {format_count(score['rows'], 'row')}: Pearson {pearson}, Spearman {spearman}"
    if summary["config"].get("finetune", {}).get("reverse_complement"):
        yield "  The scores are of one strand, as those of train.py"
    if note := summary.get("note"):
        yield f"note: {note}"
    directory = summary["directory"]
    run = directory.removesuffix(f"-{summary['baseline']['method']}")
    yield f"compare: promoter-bert compare {shlex.quote(run)} {shlex.quote(directory)}"


def _describe_choice(baseline: dict[str, Any]) -> str:
    """Describe what the validation split chose."""
    if baseline["method"] == "cnn":
        return f"{baseline['parameters']:,} parameters, best epoch {baseline['best_epoch']}"
    alpha = baseline["alpha"]
    if isinstance(alpha, dict):
        return ", ".join(f"alpha of {label} {value:g}" for label, value in alpha.items())
    return f"alpha {alpha:g}"
