"""Make the sections of a run's page on its predictions of held-out promoters."""

import itertools
from collections.abc import Iterator, Sequence

from model.reporting.predictions import HeldOutResults
from model.reporting.run_plots import FEW, calibration, density, residuals
from pipeline.dataset.query import Columns
from pipeline.reporting.html import Fold, Section, Table
from pipeline.reporting.svg import MIDDLE_WIDTH, query_section

RESIDUAL = (
    "A residual is measured minus predicted expression: above 0, the prediction is too low. Pale bars hold the middle "
    f"half of the promoters; open circles are means of fewer than {FEW}."
)


def prediction_sections(held_out: HeldOutResults) -> Iterator[Section]:
    """Show predicted against measured expression, calibration, and residuals by properties of a promoter."""
    results = held_out.results
    cells = results["predicted_and_measured"]
    yield query_section(
        "predicted_and_measured",
        "Predicted and measured",
        f"{held_out.rows:,} promoters of the {held_out.split} split, counted in cells of {cells['step'][0]:g} by "
        f"{cells['step'][0]:g}. On the dashed line, prediction equals measurement. Predictions span a smaller range "
        "than noisy labels: the noise cannot be predicted.",
        density(cells),
        4.6,
        MIDDLE_WIDTH,
    )
    groups = results["calibration"]
    columns = ("quantile", "promoters", "mean_prediction", "mean_expression", "standard_error")
    yield query_section(
        "calibration",
        "Calibration",
        "The promoters are sorted by prediction and divided into twenty groups of equal size. On the dashed line, the "
        "mean prediction of a group equals its mean measurement.",
        calibration(groups),
        3.4,
        MIDDLE_WIDTH,
        [_numbers(groups, columns)],
    )
    yield from _residual_sections(results)


def _residual_sections(results: dict[str, Columns]) -> Iterator[Section]:
    labels = results["residuals_by_expression"]["expression"]
    step = min((b - a for a, b in itertools.pairwise(labels)), default=1.0)
    yield _residuals(
        results, "expression", "Residuals by expression", labels, step, "measured expression (units of the labels)",
        "A rising line is expected: noise made some of the highest labels high and some of the lowest low.",
    )  # fmt: skip
    lengths = results["residuals_by_length"]["bases"]
    yield _residuals(
        results, "length", "Residuals by insert length", lengths, 1.0, "insert length (bases)",
        "If an interval is far from 0, the model is wrong on average for inserts of that length.",
    )  # fmt: skip
    middles = [100 * gc + 2.5 for gc in results["residuals_by_gc"]["gc"]]  # of steps that are 5 % wide
    if middles:  # inserts without a base have none
        yield _residuals(
            results, "gc", "Residuals by GC content", middles, 5.0, "GC content of the insert (%)",
            "A slope means that the model misses part of the effect of base composition on expression.",
        )  # fmt: skip


def _residuals(
    results: dict[str, Columns], by: str, heading: str, places: Sequence[float], step: float, x: str, text: str
) -> Section:
    name = f"residuals_by_{by}"
    groups = results[name]
    numbers = _numbers(groups, [column for column in groups if column not in ("run", "split")])
    draw = residuals(groups, places, x, 0.88 * step)
    return query_section(name, heading, f"{RESIDUAL} {text}", draw, 4.0, MIDDLE_WIDTH, [numbers])


def _numbers(groups: Columns, names: Sequence[str]) -> Fold:
    """Fold a table of columns: counts with separators, other numbers with six digits."""
    columns = [
        ["" if value is None else f"{value:{',' if isinstance(value, int) else '.6g'}}" for value in groups[name]]
        for name in names
    ]
    heads = [name.replace("_", " ") for name in names]
    return Fold("Numbers", Table(heads, list(zip(*columns, strict=True)), frozenset(range(len(names)))))
