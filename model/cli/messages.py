"""What the model commands print of their results."""

from typing import TYPE_CHECKING

from pipeline.runtime.text import format_count

if TYPE_CHECKING:
    from model.export.onnx import ExportResult
    from model.interpretation.page import ExplainResult
    from model.prediction.files import PredictionResult
    from model.scoring.dream import DreamScore
    from pipeline.dataset.synthetic_ceiling import Score


def describe_predicted(result: "PredictionResult", output: str) -> list[str]:
    """Describe the predictions of files: rows, rate, and rows without a prediction by reason."""
    place = "standard output" if output == "-" else output
    resumed = f", {result.found:,} of them by an interrupted run before" if result.found else ""
    return [
        f"{place}: {format_count(result.rows, 'promoter')} in {result.seconds:,.1f} s{resumed} "
        f"({result.rows_per_second:,.0f} per second)",
        *(f"no prediction for {count:,}: {problem}" for problem, count in result.problems.items()),
        *([result.remedy] if result.remedy else []),
        *([f"listed by row in {result.problems_file}"] if result.problems_file else []),
    ]


def score_lines(score: "DreamScore") -> list[str]:
    """Tabulate the DREAM Challenge's score: a line per subset, and the weighted means."""
    from model.scoring.dream import PAIRED, WEIGHTS

    lines = [f"{'subset':20}{'weight':>6}{'rows':>15}  {'Pearson (95 %)':29}Spearman (95 %)"]
    for name, part in score.subsets.items():
        unit = f"{part.rows:,}{' pairs' if name in PAIRED else ''}"
        pearson = _with_interval(part.pearson, part.pearson_interval)
        spearman = _with_interval(part.spearman, part.spearman_interval)
        lines.append(f"{name.replace('_', ' '):20}{WEIGHTS[name]:6g}{unit:>15}  {pearson:29}{spearman}")
    if score.pearson_score is None or score.spearman_score is None:
        return [*lines, f"no scores: no subset file of {', '.join(score.missing)}"]
    lines.append(f"Pearson Score {score.pearson_score:.4f}, Spearman Score {score.spearman_score:.4f}")
    lines.append("(weighted means as in the challenge: of r squared, and of Spearman's rho itself)")
    negative = [name.replace("_", " ") for name, part in score.subsets.items() if part.pearson < 0]
    if negative:
        lines.append(f"note: Pearson is negative for {', '.join(negative)}, which its square hides")
    return lines


def _with_interval(value: float, interval: tuple[float, float]) -> str:
    return f"{value:.4f} ({interval[0]:.4f} to {interval[1]:.4f})"


def describe_explained(result: "ExplainResult") -> list[str]:
    """Describe a saturation mutagenesis: the prediction, and the base whose substitutions change it most."""
    from model.interpretation.page import NONE_SEEN, SEEN

    most = (
        f"most important base: {result.base}{result.position} of the insert (mean effect of its substitutions "
        f"{-result.loss:+.3f})"
    )
    return [
        f"{', '.join(result.outputs)}: {format_count(result.substitutions, 'substitution')}",
        f"predicted expression {result.prediction:.3f}; {NONE_SEEN if result.largest < SEEN else most}",
    ]


def describe_exported(written: "ExportResult") -> list[str]:
    """Describe an ONNX file: its size, and how far its predictions are from the model's."""
    compared = (
        "not compared with the model: onnxruntime is not installed"
        if written.difference is None
        else f"predictions for {format_count(written.promoters_compared, 'promoter')} equal the model's within "
        f"{written.difference:.1g}"
    )
    return [f"{written.file}: {written.bytes / 1e6:,.1f} MB", compared]


def describe_ceiling(score: "Score", run: str) -> list[str]:
    """Tabulate a run's test Pearson between that of a mean predictor and the ceiling."""
    return [
        f"test Pearson of run {run} on {format_count(score.promoters, 'promoter')}",
        f"  mean predictor   {0:.3f}",
        f"  trained model    {score.pearson:.3f}",
        f"  ceiling          {score.ceiling:.3f}",
    ]
