"""Sections of a run's page on its predictions of held-out promoters."""

import itertools
from collections.abc import Iterator, Sequence

from model.reporting.plots import calibration, density, residuals
from model.reporting.predictions import HeldOut
from pipeline.dataset.query import Columns
from pipeline.reporting.html import Fold, Section, Table
from pipeline.reporting.svg import MIDDLE_WIDTH, Draw, svg

RESIDUAL = "A residual is measured less predicted: above 0 the prediction is too low. Bands: the middle half. "


def prediction_sections(held_out: HeldOut) -> Iterator[Section]:
    """Predicted against measured, calibration, and residuals by what a promoter is like."""
    answers = held_out.answers
    cells = answers["predicted_and_measured"]
    yield _picture(
        "predicted_and_measured",
        "Predicted and measured",
        f"{held_out.rows:,} promoters of the {held_out.split} split, in cells of {cells['step'][0]:g} by "
        f"{cells['step'][0]:g}. On the dashed line both agree. Good predictions of noisy labels span less than the "
        "labels do: what noise adds cannot be predicted.",
        4.6,
        density(cells),
    )
    groups = answers["calibration"]
    yield _picture(
        "calibration",
        "Calibration",
        "Promoters in twenty equal groups by prediction. On the dashed line a prediction is right on average.",
        3.4,
        calibration(groups),
        _numbers(groups, ("quantile", "promoters", "mean_prediction", "mean_expression", "standard_error")),
    )
    by_label = answers["residuals_by_expression"]
    yield _residuals(
        by_label, "residuals_by_expression", "Residuals by expression", by_label["expression"],
        "measured expression", _step(by_label["expression"]),
        f"{RESIDUAL}A slope is expected: the highest labels are high by luck, too, and the lowest low.",
    )  # fmt: skip
    by_length = answers["residuals_by_length"]
    yield _residuals(
        by_length, "residuals_by_length", "Residuals by insert length", by_length["bases"],
        "length of the insert (bases)", 1.0,
        f"{RESIDUAL}Means far from 0, by several errors, say that the model reads these lengths wrong.",
    )  # fmt: skip
    by_gc = answers["residuals_by_gc"]
    if by_gc["gc"]:  # inserts without a base have none
        yield _residuals(
            by_gc, "residuals_by_gc", "Residuals by GC content", [100 * gc + 2.5 for gc in by_gc["gc"]],
            "GC content of the insert (%)", 5.0,
            f"{RESIDUAL}A slope says that base composition tells more of expression than the model makes of it.",
        )  # fmt: skip


def _residuals(
    found: Columns, name: str, heading: str, places: Sequence[float], x: str, step: float, says: str
) -> Section:  # fmt: skip
    names = [column for column in found if column not in ("run", "split")]
    draw = residuals(found, places, x, 0.88 * step)
    return _picture(name, heading, says, 4.0, draw, _numbers(found, names))


def _picture(name: str, heading: str, says: str, height: float, draw: Draw, numbers: Table | None = None) -> Section:
    more = [] if numbers is None else [Fold("Numbers", numbers)]
    return Section(heading, says, svg(name, heading, height, draw, MIDDLE_WIDTH), f"sql/queries/{name}.sql", more)


def _numbers(found: Columns, names: Sequence[str]) -> Table:
    columns = [found[name] for name in names]
    rows = [[_text(value) for value in row] for row in zip(*columns, strict=True)]
    return Table([name.replace("_", " ") for name in names], rows, frozenset(range(len(names))))


def _text(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:.6g}"


def _step(places: Sequence[float]) -> float:
    """The least distance of two neighbours."""
    return min((b - a for a, b in itertools.pairwise(places)), default=1.0)
