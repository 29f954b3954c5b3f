"""The commands score, explain, onnx, report, compare and ceiling: results of finished runs."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from model.cli.messages import describe_ceiling, describe_explained, describe_exported, score_lines
from model.cli.options import MODEL_FOLDER, configuration, overrides
from pipeline.cli.options import ConfigFile, DatasetFile, Json, print_result, text_of
from pipeline.config.schema import DEFAULT_CONFIG
from pipeline.runtime.progress import naming, progress
from pipeline.runtime.text import format_count


def score(
    predictions: Annotated[
        Path, typer.Argument(help="sequence<TAB>prediction lines, or JSON by row number of the test file.")
    ],
    labels: Annotated[Path, typer.Option(help="sequence<TAB>expression lines of all rows, or JSON by row number.")],
    subsets: Annotated[Path, typer.Option(help="Folder test_subset_ids, or public_leaderboard_ids.")],
    public: Annotated[
        Path | None, typer.Option(help="Folder public_leaderboard_ids: rows to exclude, as the final score does.")
    ] = None,
    test: Annotated[
        Path | None, typer.Option(help="test_sequences.txt, for labels by row number and predictions by sequence.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Score predictions as the DREAM Challenge does.

    Nine subsets, each with Pearson and Spearman correlation and 95 % interval, and their weighted means.
    """
    from model.scoring.dream_files import score_files

    result = score_files(predictions, labels, subsets, public, test)
    print_result(asdict(result), as_json, score_lines(result))


def explain(
    context: typer.Context,
    sequence: Annotated[str, typer.Argument(help="A promoter, adapters included.")],
    output: Annotated[
        list[Path],
        typer.Option(
            "-o",
            "--output",
            help="File to write: page (.html), figure (.svg) or table (.tsv, .parquet); may be repeated.",
        ),
    ],
    model: Annotated[
        Path | None, typer.Option(help="Run directory, or its model folder [default: that of the config's run].")
    ] = None,
    config: ConfigFile = DEFAULT_CONFIG,
    as_json: Json = False,
) -> None:
    """Compute the effect of each substitution in a promoter.

    In-silico saturation mutagenesis of the insert. Without --model, run.name and run.path choose the model. Repairs of
    the sequence may be added as for predict.
    """
    from model.interpretation.page import explain as run

    repairs = overrides(context)
    if model is None:
        model = configuration(context, config).run.directory / "model"
        repairs = tuple(word for word in repairs if not word.startswith("run."))
    result = run(model, sequence, output, repairs)
    print_result(asdict(result), as_json, describe_explained(result))


def onnx(
    model: Annotated[Path, typer.Argument(help=MODEL_FOLDER)],
    output: Annotated[Path, typer.Option("-o", "--output", help="File to write, .onnx.")] = Path("model.onnx"),
    as_json: Json = False,
) -> None:
    """Export a model as one ONNX file for any language.

    Its input is the bases of promoters as bytes. Needs the extra: pip install -e '.[onnx]'. With onnxruntime installed,
    the predictions of the file are compared with the model's before the file is kept.
    """
    from model.export.onnx import STEPS, export_onnx

    with progress("onnx", "steps", quiet=as_json) as show:
        written = export_onnx(model, output, naming(show, STEPS))
    print_result(asdict(written), as_json, describe_exported(written))


def report(
    run: Annotated[Path, typer.Argument(help="Run directory: runs/NAME.")],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="HTML file [default: report.html in the run directory].")
    ] = None,
    dataset: Annotated[
        Path | None, typer.Option("--dataset", help="DuckDB file of the training [default: as the run recorded it].")
    ] = None,
    score: Annotated[
        Path | None,
        typer.Option("--score", help="Output of promoter-bert score --json: shows the challenge's score."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a page about a run.

    One HTML file: settings, data, learning curves, predictions and residuals.
    """
    from model.reporting.run_page import STEPS, write_report

    with progress("report", "steps", quiet=as_json) as show:
        written = write_report(run, out, dataset, score, naming(show, STEPS))
    print_result(asdict(written), as_json, [f"{written.page}: {written.bytes / 1e3:,.0f} kB", *written.missing])


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Two run directories or more: runs/ONE runs/OTHER.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="HTML file to write.")] = Path("compare.html"),
    as_json: Json = False,
) -> None:
    """Write a page that compares runs.

    One HTML file: scores, settings that differ, learning curves.
    """
    from model.reporting.compare_page import compare_runs
    from model.reporting.compare_page import score_lines as run_scores

    if len(runs) < 2:
        raise typer.BadParameter("expected two or more; for one run: promoter-bert report", param_hint="RUNS")
    found = compare_runs(runs, out)
    print_result(asdict(found), as_json, [f"{found.page}: {format_count(len(found.runs), 'run')}", *run_scores(found)])


def ceiling(
    context: typer.Context,
    config: ConfigFile = DEFAULT_CONFIG,
    dataset: DatasetFile = None,
    as_json: Json = False,
) -> None:
    """Compare a run's test Pearson with the ceiling.

    For rows of promoter-bert generate only, whose highest Pearson to be expected is known. run.name chooses the run.
    """
    from pipeline.dataset.synthetic_ceiling import score_against_ceiling

    settings = configuration(context, config, dataset__path=text_of(dataset))
    found = score_against_ceiling(settings.dataset.path, settings.run.name)
    print_result(asdict(found), as_json, describe_ceiling(found, settings.run.name))
