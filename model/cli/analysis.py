"""Commands score, onnx, report, compare and ceiling: analysis of trained models and runs."""

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
        Path,
        typer.Argument(
            help="Predictions: sequence<TAB>prediction lines, or JSON by row number (from 0) of the test file."
        ),
    ],
    labels: Annotated[
        Path,
        typer.Option(help="Labels: sequence<TAB>expression lines of all test rows, or JSON by row number (from 0)."),
    ],
    subsets: Annotated[Path, typer.Option(help="Folder of subset files: test_subset_ids or public_leaderboard_ids.")],
    public: Annotated[
        Path | None,
        typer.Option(help="Folder public_leaderboard_ids: rows to exclude, as in the final score. [default: none]"),
    ] = None,
    test: Annotated[
        Path | None,
        typer.Option(
            help="test_sequences.txt; needed for labels by row number with predictions by sequence. [default: none]"
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Compute the DREAM Challenge score of predictions.

    Prints Pearson and Spearman correlations of nine subsets with 95 % intervals, and their weighted means.

    Example: promoter-bert score out.tsv --labels labels.txt --subsets test_subset_ids
    """
    from model.scoring.dream_files import score_files

    result = score_files(predictions, labels, subsets, public, test)
    print_result(result, as_json, describe_score(result))


def describe_score(score: "DreamScore") -> list[str]:
    """Format the DREAM Challenge score: one line per subset, then the weighted means."""
    from model.scoring.dream import PAIRED, WEIGHTS

    lines = [f"{'subset':20}{'weight':>6}{'rows':>15}  {'Pearson (95 %)':29}Spearman (95 %)"]
    for name, part in score.subsets.items():
        unit = f"{part.rows:,}{' pairs' if name in PAIRED else ''}"
        pearson = format_interval(part.pearson, part.pearson_interval)
        spearman = format_interval(part.spearman, part.spearman_interval)
        lines.append(f"{name.replace('_', ' '):20}{WEIGHTS[name]:6g}{unit:>15}  {pearson:29}{spearman}")
    if score.pearson_score is None or score.spearman_score is None:
        return [
            *lines,
            f"no Pearson Score and no Spearman Score: subset files of {', '.join(score.missing)} are missing",
        ]
    lines.append(f"Pearson Score {score.pearson_score:.4f}, Spearman Score {score.spearman_score:.4f}")
    lines.append("(weighted means over the nine subsets, as in the challenge: of r squared, and of rho not squared)")
    negative = [name.replace("_", " ") for name, part in score.subsets.items() if part.pearson < 0]
    if negative:
        lines.append(
            f"note: Pearson is negative for {', '.join(negative)}; the Pearson Score squares it, so it raises the score"
        )
    return lines


def onnx(
    model: Annotated[Path, typer.Argument(help=MODEL_FOLDER)],
    output: Annotated[Path, typer.Option("-o", "--output", help="ONNX file to write (.onnx).")] = Path("model.onnx"),
    as_json: Json = False,
) -> None:
    """Export a model as one ONNX file.

    The file's input is the bases of promoters as bytes, for programs in any language. Needs the extra: pip install -e
    '.[onnx]'. If onnxruntime is installed, the file is written only if its predictions equal the model's.

    Example: promoter-bert onnx runs/demo -o model.onnx
    """
    from model.artifacts.model_directory import read_sequence_name
    from model.export.onnx import STEPS, export_onnx

    with progress("onnx", "steps", quiet=as_json) as show:
        written = export_onnx(model, output, count_steps(show, STEPS))
    compared = (
        "predictions not compared with the model's: onnxruntime is not installed"
        if written.difference is None
        else f"predictions for {format_count(written.promoters_compared, read_sequence_name(model))} differ from the "
        f"model's by at most {written.difference:.1g}"
    )
    print_result(written, as_json, [f"{written.file}: {written.bytes / 1e6:,.1f} MB", compared])


def report(
    run: Annotated[Path, typer.Argument(help="Run directory runs/NAME.")],
    out: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="HTML file to write. [default: report.html in the run directory]"),
    ] = None,
    dataset: Annotated[
        Path | None,
        typer.Option("--dataset", help="DuckDB file that the run was trained on. [default: as recorded in the run]"),
    ] = None,
    score: Annotated[
        Path | None,
        typer.Option(
            "--score", help="Output of promoter-bert score --json: adds the DREAM Challenge score. [default: none]"
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write the report of a run as one HTML page.

    Shows scores, data, learning curves, predictions, residuals and settings.

    Example: promoter-bert report runs/demo -o report.html
    """
    from model.reporting.run_page import STEPS, write_report

    with progress("report", "steps", quiet=as_json) as show:
        written = write_report(run, out, dataset, score, count_steps(show, STEPS))
    print_result(written, as_json, [f"{written.page}: {written.bytes / 1e3:,.0f} kB", *written.missing])


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Two or more run directories: runs/ONE runs/OTHER.")],
    out: Annotated[Path, typer.Option("-o", "--output", help="HTML file to write.")] = Path("compare.html"),
    as_json: Json = False,
) -> None:
    """Write a comparison of runs as one HTML page.

    Shows scores, tests of their differences, settings that differ, and learning curves. Each run is tested against the
    first one, on the same held-out rows (paired bootstrap). Baselines of the command baseline are runs, too.

    Example: promoter-bert compare runs/one runs/other -o compare.html
    """
    from model.reporting.compare_page import compare_runs, score_lines
    from model.reporting.paired_tests import describe_tests

    if len(runs) < 2:
        raise typer.BadParameter("expected two or more, got one; fix: promoter-bert report RUN", param_hint="RUNS")
    result = compare_runs(runs, out)
    lines = [f"{result.page}: {format_count(len(runs), 'run')}", *score_lines(result)]
    print_result(result, as_json, [*lines, *describe_tests(result.tests, result.not_tested)])


def ceiling(
    context: typer.Context,
    config: ConfigFile = DEFAULT_CONFIG,
    dataset: DatasetFile = None,
    as_json: Json = False,
) -> None:
    """Compare a run's test Pearson with the ceiling.

    The ceiling is the highest expected Pearson of any model on the test split. It is known only for the rows of
    promoter-bert generate. run.name selects the run.

    Example: promoter-bert ceiling --config configs/demo.yaml run.name=demo
    """
    from pipeline.dataset.synthetic.ceiling import score_against_ceiling

    settings = configuration(context, config, dataset__path=dataset)
    score = score_against_ceiling(settings.dataset.path, settings.run.name)
    lines = [
        f"Pearson of run {settings.run.name} on the test split ({format_count(score.promoters, 'promoter')})",
        f"  mean predictor   {0:.3f}",
        f"  trained model    {score.pearson:.3f}",
        f"  ceiling          {score.ceiling:.3f} (highest expected Pearson of any model on these test promoters)",
    ]
    print_result(score, as_json, lines)
