"""The command explain."""

import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from model.cli.messages import describe_problems
from model.cli.options import AltColumn, FirstPosition, PositionColumn, RefColumn, Workers, configuration
from pipeline.cli.options import INPUT_FILES, ConfigFile, Json, SequenceColumn, print_result
from pipeline.config.schema import DEFAULT_CONFIG
from pipeline.runtime.progress import emit, progress
from pipeline.runtime.text import format_count

if TYPE_CHECKING:
    from model.interpretation.files import ExplainFilesResult
    from model.interpretation.page import ExplainResult
    from model.interpretation.request import ExplainRequest

PATH_CHARACTERS = frozenset("./\\*?[")
"""Characters of file names and patterns that are in no sequence."""


def explain(
    context: typer.Context,
    sequences: Annotated[
        list[str],
        typer.Argument(
            help=f"A promoter in bases ACGTN, adapters included; or files of promoters: {INPUT_FILES}; - for standard "
            "input (lines or FASTA).",
        ),
    ],
    output: Annotated[
        list[Path],
        typer.Option(
            "-o",
            "--output",
            help="File to write: page (.html), figure (.svg, .png) or table (.tsv, .parquet); can be repeated.",
        ),
    ] = [Path("explain.html")],  # noqa: B006
    model: Annotated[
        Path | None, typer.Option(help="Run directory, or its model folder. [default: run.path/run.name of the config]")
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(help="Label to explain, for a model with several. [default: all, in tables and pages]"),
    ] = None,
    motifs: Annotated[
        Path | None, typer.Option(help="MEME file of motifs, whose hits are drawn and written. [default: none]")
    ] = None,
    variants: Annotated[
        bool, typer.Option("--variants", help="The files are tables of variants, as promoter-bert variants reads them.")
    ] = False,
    sequence_column: SequenceColumn = None,
    name_column: Annotated[
        str | None,
        typer.Option(help="Column of the names of the rows. [default: names in FASTA headers, or numbers of rows]"),
    ] = None,
    ref_column: RefColumn = None,
    alt_column: AltColumn = None,
    position_column: PositionColumn = None,
    first_position: FirstPosition = None,
    workers: Workers = None,
    config: ConfigFile = DEFAULT_CONFIG,
    as_json: Json = False,
) -> None:
    """Compute the effect of each base substitution on expression.

    In-silico saturation mutagenesis of the insert, drawn as a sequence logo. Files get a figure for each of their first
    rows; tables have all rows. Run the same command to resume. --variants draws both sides of each variant.

    Without --model, run.path and run.name select the model. Overrides can also request repairs of the sequence, as in
    predict.

    Example: promoter-bert explain SEQUENCE --model runs/demo -o effects.html

    Example: promoter-bert explain rows.fa --model runs/demo --motifs motifs.meme -o page.html -o effects.tsv
    """
    repairs = context.obj.overrides
    if model is None:
        model = configuration(context, config).run.directory / "model"
        repairs = tuple(override for override in repairs if not override.startswith("run."))
    row_options = {"--sequence-column": sequence_column, "--name-column": name_column, "--workers": workers}
    variant_options = {
        "--ref-column": ref_column,
        "--alt-column": alt_column,
        "--position-column": position_column,
        "--first-position": first_position,
    }
    if not variants:
        _refuse(variant_options, "without --variants", "--variants, if the files are tables of variants")
    if not variants and _is_sequence(sequences):
        _refuse(row_options, "with a sequence", "a file of sequences, or omit the option")
        _explain_sequence(model, sequences[0], output, repairs, label, motifs, as_json)
        return

    from model.interpretation.request import ExplainRequest
    from model.prediction.variants.columns import VariantColumns
    from pipeline.dataset.input.columns import Columns

    chosen = VariantColumns(ref_column, alt_column, sequence_column, position_column, first_position)
    _explain_files(
        ExplainRequest(
            model,
            sequences,
            output,
            Columns(None if variants else sequence_column, name=name_column),
            chosen if variants else None,
            label,
            motifs,
            workers,
            repairs,
        ),
        as_json,
    )


def _is_sequence(arguments: list[str]) -> bool:
    """Whether the arguments are one sequence, not files: no such file exists, and no character is one of paths only."""
    first = arguments[0]
    return len(arguments) == 1 and first != "-" and not PATH_CHARACTERS & set(first) and not os.path.exists(first)  # noqa: PTH110 (Path.exists fails for long sequences)


def _refuse(options: dict[str, Any], problem: str, fix: str) -> None:
    """Raise a usage error for the first option that is set."""
    for name, value in options.items():
        if value is not None:
            raise typer.BadParameter(f"has no meaning {problem}; fix: {fix}", param_hint=name)


def _explain_sequence(
    model: Path,
    sequence: str,
    output: list[Path],
    repairs: tuple[str, ...],
    label: str | None,
    motifs: Path | None,
    as_json: bool,
) -> None:
    from model.interpretation.page import explain_labels

    results = explain_labels(model, sequence, output, repairs, label, motifs, _warn)
    first = next(iter(results.values()))
    written = f"{', '.join(first.outputs)}: {format_count(first.substitutions, 'substitution')}"
    if len(results) == 1:
        print_result(first, as_json, [written, _describe_effect(first)])
        return
    lines = [f"{name}: {_describe_effect(result)}" for name, result in results.items()]
    print_result({"labels": {name: asdict(each) for name, each in results.items()}}, as_json, [written, *lines])


def _warn(text: str) -> None:
    emit(f"warning: {text}")


def _describe_effect(result: "ExplainResult") -> str:
    from model.interpretation.sections import MIN_VISIBLE_EFFECT, NO_VISIBLE_EFFECT, describe_importance

    effect = NO_VISIBLE_EFFECT
    if result.largest >= MIN_VISIBLE_EFFECT:
        effect = (
            f"most important base: {result.base}{result.position} of the insert, which "
            f"{describe_importance(result.loss)}"
        )
    return f"predicted expression {result.prediction:.3f}; {effect}"


def _explain_files(request: "ExplainRequest", as_json: bool) -> None:
    from model.interpretation.request import check_explain

    check_explain(request)  # report a wrong request before torch is loaded, which takes seconds

    from model.artifacts.model_directory import read_sequence_name
    from model.interpretation.files import explain_files

    unit = "variant" if request.variants else read_sequence_name(request.model)
    with progress("explain", f"{unit}s", quiet=as_json) as show:
        result = explain_files(request, lambda done, total, before: show(done, total, "", before), _warn)
    print_result(result.as_dict(), as_json, list(_describe_files(result, unit)))


def _describe_files(result: "ExplainFilesResult", unit: str) -> Iterator[str]:
    """Describe the outputs, the rows that are drawn, and those without a prediction. unit: of a row, singular."""
    from model.interpretation.outputs import has_table

    resumed = f", {result.rows_resumed:,} of them in an interrupted run" if result.rows_resumed else ""
    yield (
        f"{', '.join(result.outputs)}: {format_count(result.substitutions, 'substitution')} in "
        f"{format_count(result.rows, unit)}{resumed}, in {result.seconds:,.1f} s"
    )
    if result.columns:
        yield f"columns: {', '.join(f'{role} {name!r}' for role, name in result.columns.items())}"
    explained = result.rows - sum(result.problems.values())
    if result.rows_drawn and (result.rows_drawn < explained or not result.is_complete):
        more = "the tables have all" if has_table([*map(Path, result.outputs)]) else "-o effects.tsv explains all"
        yield f"figures of the first {format_count(result.rows_drawn, unit)}; {more}"
    yield from describe_problems(result, problems_file=result.problems_file)
