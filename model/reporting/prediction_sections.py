"""Sections of a run's page on its predictions of held-out promoters."""

import itertools
from collections.abc import Iterator, Sequence

from model.reporting.predictions import HeldOutResults
from model.reporting.run_plots import FEW, MEASURED, calibration, density, residuals
from model.runs.read import SPLITS, RunFiles
from pipeline.dataset.query import Columns
from pipeline.reporting.html import Figures, Fold, Section, Table
from pipeline.reporting.svg import HALF_WIDTH, query_section, render_svg
from pipeline.reporting.text import with_unit
from pipeline.runtime.text import name_sequences

RESIDUALS = (
    "A residual is measured minus predicted expression: above 0, the prediction is too low. The figures below "
    "show residuals by a property of the promoters. Dots are means with 95 % confidence intervals. Pale bars span the "
    f"middle half of the residuals. Open circles are means of fewer than {FEW} promoters, without an interval. The "
    "lower panel shows the number of promoters."
)
NOISE = (
    "Even a perfect model shows this, because noise cannot be predicted. A weak model also shows it: compare the "
    "Pearson of the run with the noise ceiling, if it is known."
)
HEADS = {
    "quantile": "group",
    "bases": "insert length (bases)",
    "gc": "GC content (%)",
    "expression": "measured expression",
    "mean_expression": "mean measured expression",
    "mean_prediction": "mean predicted expression",
    "standard_error": "standard error of the mean",
}
"""Column of a query -> its head in a table; other columns keep their names."""


def prediction_sections(run: RunFiles, held_out: HeldOutResults) -> Iterator[Section]:
    """Show predicted against measured expression, calibration, and residuals by properties of the promoters.

    With several labels only the first, in a figure per label.
    """
    name, unit = run.sequence_name, run.unit
    if held_out.labels:
        yield _label_section(run, held_out)
        return
    results = held_out.results
    cells = results["predicted_and_measured"]
    yield query_section(
        "predicted_and_measured",
        "Predicted and measured expression",
        f"{held_out.rows:,} {name}s of the {SPLITS[held_out.split]} split, counted in cells of {cells['step'][0]:g} "
        f"by {cells['step'][0]:g} {unit or 'units'}. On the dashed line, prediction equals measurement. Predictions "
        f"usually span a smaller range than measurements. {NOISE}",
        density(cells, name, unit=unit, scores=_correlations(run, held_out)),
        4.6,
    )
    groups = results["calibration"]
    columns = ("quantile", "promoters", "mean_prediction", "mean_expression", "standard_error")
    yield query_section(
        "calibration",
        "Calibration",
        f"Calibration shows whether predictions are right on average. The {name}s are sorted by prediction and "
        "divided into twenty groups of equal size; each dot is one group. On the dashed line, the mean prediction of a "
        "group equals its mean measurement. Vertical lines are 95 % confidence intervals of the mean measurement.",
        calibration(groups, unit),
        3.4,
        [_numbers(groups, columns, name)],
    )
    yield from _residual_sections(results, name, unit)


def _correlations(run: RunFiles, held_out: HeldOutResults, label: str = "") -> tuple[float, float] | None:
    """Return Pearson's r and Spearman's rho of a split as the run recorded them. label: one of several."""
    scores, suffix = run.scores.get(held_out.split, {}), f"/{label}" if label else ""
    names = f"pearson{suffix}", f"spearman{suffix}"
    return (scores[names[0]], scores[names[1]]) if scores.keys() >= set(names) else None


def _label_section(run: RunFiles, held_out: HeldOutResults) -> Section:
    name = run.sequence_name
    draws = {
        label: density(cells, name, label, run.unit, _correlations(run, held_out, label))
        for label, cells in held_out.labels.items()
        if cells["promoters"]
    }
    figures = [
        render_svg(f"predicted_and_measured-{number}", f"Label {label}", draw, 3.6, HALF_WIDTH)
        for number, (label, draw) in enumerate(draws.items())
    ]
    return Section(
        "Predicted and measured expression",
        f"{held_out.rows:,} {name}s of the {SPLITS[held_out.split]} split, in one figure per label, counted in "
        f"cells. {name_sequences('Promoters without', name)} a measured value of a label are not in its figure. On the "
        "dashed line, prediction equals measurement. Predictions usually span a smaller range than measurements. "
        f"{NOISE}",
        [Figures(figures)],
        "sql/queries/predicted_and_measured.sql",
    )


def _residual_sections(results: dict[str, Columns], name: str, unit: str) -> Iterator[Section]:
    values = results, name, unit
    yield Section("Residuals", name_sequences(RESIDUALS, name))
    labels = results["residuals_by_expression"]["expression"]
    step = min((b - a for a, b in itertools.pairwise(labels)), default=1.0)
    yield _residuals(
        *values, "expression", "Residuals by expression", labels, step, with_unit(MEASURED, unit),
        f"Residuals usually rise from left to right. {NOISE}",
    )  # fmt: skip
    lengths = results["residuals_by_length"]["bases"]
    if len(lengths) > 1:  # one length has no figure
        yield _residuals(
            *values, "length", "Residuals by insert length", lengths, 1.0, "insert length (bases)",
            "If an interval does not include 0, predictions for inserts of this length are probably wrong on average.",
        )  # fmt: skip
    middles = [100 * gc + 2.5 for gc in results["residuals_by_gc"]["gc"]]  # middles of steps 5 % wide
    if middles:  # empty if all inserts are empty
        yield _residuals(
            *values, "gc", "Residuals by GC content", middles, 5.0, "GC content of the insert (%)",
            "A slope means that the model misses part of the relation between GC content and expression.",
        )  # fmt: skip


def _residuals(
    results: dict[str, Columns],
    name: str,
    unit: str,
    by: str,
    heading: str,
    places: Sequence[float],
    step: float,
    x: str,
    text: str,
) -> Section:
    query = f"residuals_by_{by}"
    groups = results[query]
    numbers = _numbers(groups, [column for column in groups if column not in ("run", "split")], name)
    draw = residuals(groups, places, x, 0.88 * step, name, unit)
    return query_section(query, heading, text, draw, 4.0, [numbers])


def _numbers(groups: Columns, names: Sequence[str], word: str) -> Fold:
    """Make a folded table of columns, in the units of the figure. word: assay.name."""
    columns = [[_number(name, value) for value in groups[name]] for name in names]
    heads = [name_sequences(HEADS.get(name, name.replace("_", " ")), word) for name in names]
    return Fold("Numbers of this figure", Table(heads, list(zip(*columns, strict=True)), frozenset(range(len(names)))))


def _number(name: str, value: float | None) -> str:
    """Format a value of a column: counts with thousands separators, other numbers with six digits."""
    if value is None:
        return ""
    if name == "gc":
        return f"{100 * value:.0f} to {100 * value + 5:.0f}"
    return f"{value:{',' if isinstance(value, int) else '.6g'}}"
