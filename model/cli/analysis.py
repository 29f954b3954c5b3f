"""The commands score, explain, onnx, report, compare and ceiling: results of finished runs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from model.cli.options import MODEL_FOLDER, configuration
from pipeline.cli.options import ConfigFile, DatasetFile, Json, print_result
from pipeline.config.schema import DEFAULT_CONFIG
from pipeline.runtime.progress import count_steps, progress
from pipeline.runtime.text import format_count, format_interval

if TYPE_CHECKING:
    from model.scoring.dream import DreamScore


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
    print_result(result, as_json, describe_score(result))


def describe_score(score: "DreamScore") -> list[str]:
    """Tabulate the DREAM Challenge's score: a line per subset, and the weighted means."""
    from model.scoring.dream import PAIRED, WEIGHTS

    lines = [f"{'subset':20}{'weight':>6}{'rows':>15}  {'Pearson (95 %)':29}Spearman (95 %)"]
    for name, part in score.subsets.items():
        unit = f"{part.rows:,}{' pairs' if name in PAIRED else ''}"
        pearson = format_interval(part.pearson, part.pearson_interval)
        spearman = format_interval(part.spearman, part.spearman_interval)
        lines.append(f"{name.replace('_', ' '):20}{WEIGHTS[name]:6g}{unit:>15}  {pearson:29}{spearman}")
    if score.pearson_score is None or score.spearman_score is None:
        return [*lines, f"no scores: no subset file of {', '.join(score.missing)}"]
    lines.append(f"Pearson Score {score.pearson_score:.4f}, Spearman Score {score.spearman_score:.4f}")
    lines.append("(weighted means as in the challenge: of r squared, and of Spearman's rho itself)")
    negative = [name.replace("_", " ") for name, part in score.subsets.items() if part.pearson < 0]
    if negative:
        lines.append(f"note: Pearson is negative for {', '.join(negative)}, which its square hides")
    return lines


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
    from model.interpretation.page import NONE_SEEN, SEEN
    from model.interpretation.page import explain as run

    repairs = context.obj.overrides
    if model is None:
        model = configuration(context, config).run.directory / "model"
        repairs = tuple(word for word in repairs if not word.startswith("run."))
    result = run(model, sequence, output, repairs)
    strongest = (
        f"most important base: {result.base}{result.position} of the insert (mean effect of its substitutions "
        f"{-result.loss:+.3f})"
    )
    lines = [
        f"{', '.join(result.outputs)}: {format_count(result.substitutions, 'substitution')}",
        f"predicted expression {result.prediction:.3f}; {NONE_SEEN if result.largest < SEEN else strongest}",
    ]
    print_result(result, as_json, lines)


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
        written = export_onnx(model, output, count_steps(show, STEPS))
    compared = (
        "not compared with the model: onnxruntime is not installed"
        if written.difference is None
        else f"predictions for {format_count(written.promoters_compared, 'promoter')} equal the model's within "
        f"{written.difference:.1g}"
    )
    print_result(written, as_json, [f"{written.file}: {written.bytes / 1e6:,.1f} MB", compared])


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
        written = write_report(run, out, dataset, score, count_steps(show, STEPS))
    print_result(written, as_json, [f"{written.page}: {written.bytes / 1e3:,.0f} kB", *written.missing])


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Two run directories or more: runs/ONE runs/OTHER.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="HTML file to write.")] = Path("compare.html"),
    as_json: Json = False,
) -> None:
    """Write a page that compares runs.

    One HTML file: scores, settings that differ, learning curves.
    """
    from model.reporting.compare_page import compare_runs, score_lines

    if len(runs) < 2:
        raise typer.BadParameter("expected two or more; for one run: promoter-bert report", param_hint="RUNS")
    result = compare_runs(runs, out)
    print_result(result, as_json, [f"{result.page}: {format_count(len(runs), 'run')}", *score_lines(result)])


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

    settings = configuration(context, config, dataset__path=dataset)
    score = score_against_ceiling(settings.dataset.path, settings.run.name)
    lines = [
        f"test Pearson of run {settings.run.name} on {format_count(score.promoters, 'promoter')}",
        f"  mean predictor   {0:.3f}",
        f"  trained model    {score.pearson:.3f}",
        f"  ceiling          {score.ceiling:.3f}",
    ]
    print_result(score, as_json, lines)
