"""Writer of the page of an evaluation: scores per label and per group, predicted against measured values."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from model.artifacts.model_directory import read_sequence_name, read_unit
from model.prediction.evaluate import EvaluationResult, LabelledRows
from model.reporting.run_plots import DIAGONAL, DOTS, MEASURED, PREDICTED, Bar, bars, density, write_scores
from model.scoring.metrics import pearson, spearman
from model.scoring.scores import RegressionScores
from pipeline.dataset.query import Columns
from pipeline.io.atomic import new_file
from pipeline.reporting.html import Content, Figures, Section, Table, expect_page_name, render_page
from pipeline.reporting.svg import MIDDLE_WIDTH, plot, render_svg
from pipeline.reporting.text import with_unit
from pipeline.runtime.text import format_count

MOST_DOTS = 3000
"""More rows are drawn as counts in cells, because dots would cover each other."""
MOST_BARS = 40
"""More groups are shown in the table only."""
CELLS = 36
"""Cells per axis, roughly, in a figure of counts."""
HEADS = ("rows", "Pearson", "Spearman", "MSE", "R²", "RMSE")
DIGITS = 3
"""Digits after the decimal point, with which four scores and their intervals fit on the page."""
NUMBERS = frozenset(range(1, len(HEADS) + 1))


def write_evaluation(result: EvaluationResult, rows: LabelledRows, model: Path, out: Path) -> EvaluationResult:
    """Write the page of an evaluation to `out`, an .html file, atomically. Returns the result with the page's path.

    model: folder named on the page. Raises UserError for an output that cannot be written.
    """
    expect_page_name(out)
    title = f"promoter-bert: evaluation of {model}"
    counted = format_count(result.rows, "row")
    lead = f"{counted}; sequences in column {result.sequence_column!r}. Intervals are 95 % bootstrap intervals."
    sections = list(_sections(result, rows, read_sequence_name(model), read_unit(model)))
    content = render_page(title, lead, sections, f"Model {model}")
    with new_file(out) as file:
        file.write_text(content, encoding="utf-8")
    return replace(result, page=str(out))


def _sections(result: EvaluationResult, rows: LabelledRows, name: str, unit: str) -> Iterator[Section]:
    yield Section(
        "Scores",
        "Scores of the predictions on the rows that have a label. MSE and R² need labels on the scale of the training "
        "labels; the correlations do not. RMSE, the root of MSE, is the typical error in the unit of the labels."
        f"{_describe_training_rows(result)}",
        [score_table("label", result.titled_scores)],
    )
    for number, (label, column) in enumerate(result.label_columns.items()):
        heading = f"Predicted and measured {label}"
        predicted, measured = rows.predictions[:, number], rows.labels[:, number]
        present = np.isfinite(predicted) & np.isfinite(measured)
        figure = _figure(f"values {number}", heading, predicted[present], measured[present], name, unit)
        yield Section(
            heading,
            f"{format_count(int(present.sum()), 'row')} with a label in column {column!r}. On the dashed line, "
            "prediction equals measurement.",
            [figure],
        )
        if result.groups:
            groups = {name: scores[label] for name, scores in result.groups.items()}
            yield _group_section(f"{label} by {result.group_column}", f"groups {number}", groups)


def _describe_training_rows(result: EvaluationResult) -> str:
    """Describe the training rows among the rows in a sentence that follows others; an empty text without any."""
    text = result.describe_training_rows()
    return f" {text}. {'Figures and groups' if result.groups else 'Figures'} include them." if text else ""


def _group_section(heading: str, name: str, groups: Mapping[str, RegressionScores]) -> Section:
    contents: list[Content] = [score_table("group", groups)]
    if len(groups) <= MOST_BARS:
        rows = [Bar(group, scores.pearson, scores.pearson_interval) for group, scores in groups.items()]
        svg = render_svg(name, heading, bars(rows, "Pearson"), 0.7 + 0.3 * len(rows), MIDDLE_WIDTH)
        contents.insert(0, Figures([svg]))
    return Section(heading, "Scores within each group. Small groups have wide intervals.", contents)


def score_table(head: str, scores: Mapping[str, RegressionScores]) -> Table:
    """Make the table of scores by label or group. head: of the first column."""
    rows = [(name, f"{row.rows:,}", *row.cells(DIGITS), row.rmse_cell) for name, row in scores.items()]
    return Table((head, *HEADS), rows, NUMBERS)


def _figure(
    svg: str, title: str, predicted: npt.NDArray[np.floating], measured: npt.NDArray[np.floating], name: str, unit: str
) -> Figures:
    scores = pearson(predicted, measured), spearman(predicted, measured)
    if len(predicted) <= MOST_DOTS:
        return Figures([render_svg(svg, title, dots(measured, predicted, unit, scores), 4.6, MIDDLE_WIDTH)])
    draw = density(count_cells(measured, predicted), name, unit=unit, scores=scores)
    return Figures([render_svg(svg, title, draw, 4.6, MIDDLE_WIDTH)])


@plot
def dots(
    figure: Figure,
    measured: npt.NDArray[np.floating],
    predicted: npt.NDArray[np.floating],
    unit: str,
    scores: tuple[float, float],
) -> None:
    """Plot one dot per row, predicted against measured, and the diagonal.

    unit: assay.unit; scores: Pearson's r and Spearman's rho.
    """
    axes = figure.subplots()
    values = [*measured, *predicted] or [0, 1]
    low, high = float(min(values)), float(max(values))
    axes.plot([low, high], [low, high], **DIAGONAL)
    axes.plot(measured, predicted, **(DOTS | {"markersize": 2.5, "alpha": 0.5, "markeredgewidth": 0}))
    axes.set(xlabel=with_unit(MEASURED, unit), ylabel=with_unit(PREDICTED, unit))
    write_scores(axes, *scores, rows=len(measured))


def count_cells(measured: npt.NDArray[np.floating], predicted: npt.NDArray[np.floating]) -> Columns:
    """Count the rows in square cells, in the form of the query predicted_and_measured."""
    step = max(float(np.ptp(measured)), 1e-6) / CELLS
    cells, counts = np.unique(np.round(np.stack([measured, predicted], 1) / step), axis=0, return_counts=True)
    return {
        "step": [step] * len(cells),
        "measured": (cells[:, 0] * step).tolist(),
        "predicted": (cells[:, 1] * step).tolist(),
        "promoters": counts.tolist(),
    }
