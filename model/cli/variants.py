"""The command variants."""

import os
import sys
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from model.cli.messages import describe_problems, describe_speed
from model.cli.options import (
    MODEL_FOLDER,
    AltColumn,
    BothStrands,
    FirstPosition,
    PositionColumn,
    RefColumn,
    Workers,
)
from pipeline.cli.options import TABLE_FILES, Json, SequenceColumn, print_result
from pipeline.runtime.progress import add_speed, emit, progress
from pipeline.runtime.text import format_count, format_interval

if TYPE_CHECKING:
    from model.prediction.variants.files import VariantResult


def variants(
    context: typer.Context,
    model: Annotated[Path, typer.Argument(help=MODEL_FOLDER)],
    files: Annotated[list[str], typer.Argument(help=f"Table of variants: {TABLE_FILES}.")],
    output: Annotated[
        str,
        typer.Option(
            "-o",
            "--output",
            help="Output file: .tsv, .txt, .csv or .parquet, with the columns of the input first; - writes .tsv lines "
            "to standard output.",
        ),
    ],
    ref_column: RefColumn = None,
    alt_column: AltColumn = None,
    sequence_column: SequenceColumn = None,
    position_column: PositionColumn = None,
    first_position: FirstPosition = None,
    effect_column: Annotated[
        list[str] | None,
        typer.Option(
            help="Column of measured effects: prints their correlations with the predicted ones. Can be repeated, once "
            "per label of the model."
        ),
    ] = None,
    both_strands: BothStrands = False,
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Predict the effects of variants.

    The effect is the prediction of the alternative sequence minus that of the reference sequence. A row has two whole
    sequences; or a sequence, a position in it, and two alleles. Several variants of one row, separated by ";", are
    applied together. Run the same command to resume.

    Overrides can request repairs of sequences, as in predict.

    Example: promoter-bert variants runs/demo variants.tsv -o effects.tsv
    """
    from model.prediction.variants.columns import VariantColumns
    from model.prediction.variants.request import VariantRequest, check_variants
    from model.prediction.writers import is_stream

    columns = VariantColumns(
        ref_column, alt_column, sequence_column, position_column, first_position, tuple(effect_column or ())
    )
    request = VariantRequest(
        model, files, output, None, both_strands, workers, overrides=context.obj.overrides, variants=columns
    )
    if "RANK" not in os.environ:  # report a wrong request before torch is loaded, which takes seconds
        check_variants(request)

    from model.prediction.variants.files import predict_variants

    is_rank0 = os.environ.get("RANK", "0") == "0"
    with progress("variants", "variants", quiet=as_json or not is_rank0) as show:
        result = predict_variants(request, add_speed(show), lambda text: emit(f"warning: {text}"))
    if result is None:  # not rank 0
        return
    # Predictions on standard output must not be mixed with the summary.
    with redirect_stdout(sys.stderr) if is_stream(output) else nullcontext():
        print_result(result.as_dict(), as_json, describe_variants(result))


def describe_variants(result: "VariantResult") -> list[str]:
    """Describe the output, the columns that were read, the rows without a prediction, and the scores of effects."""
    place = "standard output" if result.output == "-" else result.output
    columns = ", ".join(f"{role} {name!r}" for role, name in result.columns.items())
    positions = "" if result.first_position is None else f"; the first base of a sequence is {result.first_position}"
    lines = [
        f"{place}: {describe_speed(result, 'variant')}",
        f"columns: {columns}{positions}",
        *describe_problems(result, problems_file=result.problems_file),
    ]
    for label, scores in result.scores.items():
        pearson = format_interval(scores.pearson, scores.pearson_interval)
        spearman = format_interval(scores.spearman, scores.spearman_interval)
        title = f"measured effects{f' of {label}' if len(result.scores) > 1 else ''}"
        lines.append(f"{title}: Pearson {pearson}, Spearman {spearman}, {format_count(scores.rows, 'variant')}")
    return lines
