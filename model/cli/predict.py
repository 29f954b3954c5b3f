"""The command predict."""

import os
import shlex
import sys
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from model.cli.messages import describe_problems, describe_speed
from model.cli.options import MODEL_FOLDER, BothStrands, Workers
from pipeline.cli.messages import column_of_sequences, column_title
from pipeline.cli.options import INPUT_FILES, Json, SequenceColumn, print_result
from pipeline.runtime.progress import add_speed, emit, progress
from pipeline.runtime.text import format_count, option_words

if TYPE_CHECKING:
    from model.prediction.files import PredictionResult
    from model.prediction.request import PredictionRequest


def predict(
    context: typer.Context,
    model: Annotated[Path, typer.Argument(help=MODEL_FOLDER)],
    files: Annotated[
        list[str],
        typer.Argument(help=f"Promoters: {INPUT_FILES}; - for standard input (lines or FASTA)."),
    ],
    output: Annotated[
        str,
        typer.Option(
            "-o",
            "--output",
            help="Output file. The extension gives the format: .tsv or .txt (lines of sequence<TAB>prediction), .csv "
            "(with a header line) or .parquet; - writes lines to standard output.",
        ),
    ],
    sequence_column: SequenceColumn = None,
    names: Annotated[
        bool,
        typer.Option(
            "--names", help="Copy the name of each FASTA entry (its header up to a space) to the first output column."
        ),
    ] = False,
    name_column: Annotated[
        str | None,
        typer.Option(help="Copy this input column (its name, or its number from 1) to the first output column."),
    ] = None,
    keep_columns: Annotated[
        bool,
        typer.Option(
            "--keep-columns",
            help="Write all columns of the input, in their order, before the prediction; .tsv gets a header line, too.",
        ),
    ] = False,
    both_strands: BothStrands = False,
    workers: Workers = None,
    leaderboard: Annotated[
        Path | None,
        typer.Option(help="The challenge's sample_submission.json: write JSON in the form of its leaderboard."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Predict the expression of promoters, in input order.

    For a model of one label, prints the correlations with a column of the files that is clearly that of the labels.
    For other columns and models: promoter-bert evaluate.

    Run the same command to resume. Several GPUs: deepspeed --module model.cli predict ...

    The model folder holds the settings. The command line can only add repairs of sequences: assay.white_space=strip,
    assay.lower_case=upper, assay.uracil=thymine, assay.iupac=n, assay.missing_adapters=add, assay.adapter_mismatches=2.

    Example: promoter-bert predict runs/demo rows.tsv -o predictions.tsv
    """
    from model.prediction.request import PredictionRequest, check_request
    from model.prediction.writers import is_stream
    from pipeline.dataset.input.columns import Columns

    columns = Columns(sequence_column, name=name_column)
    if keep_columns and (names or name_column is not None):
        message = "cannot be combined with --names or --name-column; fix: omit them, the names are kept"
        raise typer.BadParameter(message, param_hint="--keep-columns")
    request = PredictionRequest(
        model, files, output, columns, both_strands, workers, leaderboard, context.obj.overrides, names, keep_columns
    )
    if "RANK" not in os.environ:  # report a wrong request before torch is loaded, which takes seconds
        check_request(request)

    from model.artifacts.model_directory import read_sequence_name
    from model.prediction.files import predict_files

    is_rank0 = os.environ.get("RANK", "0") == "0"
    name = read_sequence_name(model)
    with progress("predict", f"{name}s", quiet=as_json or not is_rank0) as show:
        result = predict_files(request, add_speed(show), lambda text: emit(f"warning: {text}"))
    if result is None:  # not rank 0
        return
    place = "standard output" if output == "-" else output
    lines = [
        f"{place}: {describe_speed(result, name)}",
        f"sequences: {column_of_sequences(result.sequence_column, result.sequence_lengths)}"
        f"{_describe_adapters(result)}",
        *describe_problems(result, name, result.problems_file),
    ]
    if (scores := result.label_scores) is not None:
        lines.append(
            f"labels in {column_title(result.label_column)}: Pearson {scores.pearson:.4f}, Spearman "
            f"{scores.spearman:.4f}, {format_count(scores.rows, name)}"
            f"{f', {scores.training_rows:,} of them training rows of the model' if scores.training_rows else ''}; with "
            f"intervals{' and without training rows' if scores.training_rows else ''}: "
            f"{_evaluate_command(request, result.label_column)}"
        )
    # Predictions on standard output must not be mixed with the summary.
    with redirect_stdout(sys.stderr) if is_stream(output) else nullcontext():
        print_result(result.as_dict(), as_json, lines)


def _evaluate_command(request: "PredictionRequest", label: str | None) -> str:
    """Format the command that scores the same rows with intervals. label: name of the column, if it has one."""
    if "-" in request.inputs:  # standard input can be read only once
        return "promoter-bert evaluate, on a file"
    sequence = request.columns.sequence if request.columns else None
    given = option_words({"--sequence-column": sequence, "--expression-column": label})
    strands = ["--both-strands"] * request.both_strands
    words = ["evaluate", str(request.model), *request.inputs, *given, *strands, *request.overrides]
    return shlex.join(["promoter-bert", *words])


def _describe_adapters(result: "PredictionResult") -> str:
    """Say that adapters were added, as the settings of the model request: the lengths include them."""
    added = result.adapters_added
    return f", with the adapters of the assay, which were added to {format_count(added, 'row')}" if added else ""
