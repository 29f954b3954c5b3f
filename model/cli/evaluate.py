"""The command evaluate."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from model.cli.messages import describe_problems, describe_speed
from model.cli.options import MODEL_FOLDER, BothStrands, Workers
from pipeline.cli.options import TABLE_FILES, Json, SequenceColumn, print_result
from pipeline.runtime.progress import add_speed, emit, progress

if TYPE_CHECKING:
    from model.prediction.evaluate import EvaluationResult
    from model.scoring.scores import RegressionScores


def evaluate(
    context: typer.Context,
    model: Annotated[Path, typer.Argument(help=MODEL_FOLDER)],
    files: Annotated[list[str], typer.Argument(help=f"Labelled rows: {TABLE_FILES}.")],
    by: Annotated[str | None, typer.Option(help="Column whose values divide the rows into groups.")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="HTML page to write. [default: none]")] = None,
    sequence_column: SequenceColumn = None,
    expression_column: Annotated[
        list[str] | None,
        typer.Option(
            help="Label column: its name, or its number from 1; can be repeated, once per label of the model. "
            "[default: detected; with several labels, the columns of their names]"
        ),
    ] = None,
    both_strands: BothStrands = False,
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Score a model on labelled rows.

    Prints Pearson, Spearman, mean squared error (MSE) and R2 with 95 % intervals, per label and per group of rows.
    RMSE, the root of MSE, is the typical error in the unit of the labels. With -o, the same command resumes an
    interrupted evaluation.

    Overrides can request repairs of sequences, as in predict.

    Example: promoter-bert evaluate runs/demo labelled.tsv --by chrom -o evaluation.html
    """
    from model.prediction.evaluation_request import EvaluationRequest, check_evaluation
    from pipeline.dataset.input.columns import Columns

    request = EvaluationRequest(
        model,
        files,
        str(output or "-"),
        Columns(sequence_column),
        both_strands,
        workers,
        overrides=context.obj.overrides,
        label_columns=tuple(expression_column or ()),
        group=by,
    )
    if "RANK" not in os.environ:  # report a wrong request before torch is loaded, which takes seconds
        check_evaluation(request)

    from model.prediction.evaluate import evaluate as run

    is_rank0 = os.environ.get("RANK", "0") == "0"
    with progress("evaluate", "rows", quiet=as_json or not is_rank0) as show:
        evaluated = run(request, add_speed(show), lambda text: emit(f"warning: {text}"))
    if evaluated is None:  # not rank 0
        return
    result, rows = evaluated
    if output is not None:
        from model.reporting.evaluation_page import write_evaluation

        result = write_evaluation(result, rows, model, output)
    print_result(result.as_dict(), as_json, list(describe_evaluation(result)))


def describe_evaluation(result: "EvaluationResult") -> Iterator[str]:
    """Describe the rows, the columns that were read, and the scores as tables of text."""
    yield describe_speed(result, "row")
    labels = ", ".join(map(repr, result.label_columns.values()))
    yield f"columns: sequence {result.sequence_column!r}, label {labels}"
    yield from describe_problems(result)
    yield from _table("label", result.titled_scores)
    if len(result.scores) > 1:
        yield f"mean Pearson over the labels: {result.mean_pearson:.4f}"
    for label in result.scores if result.groups else ():
        yield ""
        yield f"{label} by {result.group_column}"
        yield from _table("group", {group: scores[label] for group, scores in result.groups.items()})
    if text := result.describe_training_rows():
        yield f"warning: {text}{'; the groups include training rows' if result.groups else ''}"
    if result.training_rows is None:
        yield f"note: not checked for training rows of the model: {result.training_rows_problem}"
    yield from _warn_of_scale(result.scores)
    if result.page:
        yield f"page: {result.page}"


def _warn_of_scale(scores: "Mapping[str, RegressionScores]") -> Iterator[str]:
    """Warn of labels whose predictions are on another scale."""
    from model.scoring.scale import is_off_scale

    for label, score in scores.items():
        if is_off_scale(score.pearson, score.r2):
            yield (
                f"warning: {label}: R2 {score.r2:.3f} is far below r^2 {score.pearson**2:.3f}: the predictions rank "
                "these rows, but have another mean or spread; fix: compare the units of these labels with those of "
                "training"
            )


def _table(head: str, scores: "Mapping[str, RegressionScores]") -> Iterator[str]:
    """Format one line per label or group: rows, and the scores with their intervals."""
    width = max(len(head), *map(len, scores))
    heads = "".join(f"{name + ' (95 %)':31}" for name in ("Pearson", "Spearman", "MSE", "R2"))
    yield f"{head:{width}}{'rows':>11}  {heads}RMSE".rstrip()
    for name, row in scores.items():
        cells = "".join(f"{text:31}" for text in row.cells())
        yield f"{name:{width}}{row.rows:>11,}  {cells}{row.rmse_cell}"
