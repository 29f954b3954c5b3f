"""Write the saturation mutagenesis of a promoter: HTML page, SVG plot, TSV or Parquet table."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from model.artifacts.model_directory import facts_of_model, model_of
from model.interpretation.saturation_mutagenesis import BASES, MutagenesisResult, saturation_mutagenesis
from model.prediction.validate import repaired
from pipeline.dataset.input.repairs import with_repairs
from pipeline.errors import UserError
from pipeline.io.atomic import expect_folder, new_file
from pipeline.reporting.html import Figures, Section, Table, render_page

SEEN = 0.0005
"""Effects below it are shown as zero in a table of three decimals."""
NONE_SEEN = f"no substitution changes the prediction by {SEEN} or more"
STRONGEST = 12
"""Substitutions in the page's table."""
TITLE = "Every substitution of the insert"


@dataclass(frozen=True)
class ExplainResult:
    """What `explain` wrote and found.

    position (from 1), base, loss: the most important base, and the mean loss of expression over its substitutions.
    largest: the largest absolute effect of a single substitution.
    """

    outputs: list[str]
    prediction: float
    substitutions: int
    position: int
    base: str
    loss: float
    largest: float


def explain(model: Path, promoter: str, outputs: list[Path], overrides: Sequence[str] = ()) -> ExplainResult:
    """Predict a promoter and all its substitutions, and write .html, .svg, .tsv or .parquet files by their suffix.

    model: folder of a model or of its run. overrides: repairs of the promoter, see with_repairs. Raises UserError for a
    model, promoter or output that cannot be used, before torch is loaded.
    """
    writers = [(output, _writer_of(output)) for output in outputs]
    model = model_of(model)
    repaired([promoter], with_repairs(facts_of_model(model)["assay"], overrides))
    result = saturation_mutagenesis(model, promoter, overrides)
    for output, write in writers:
        with new_file(output) as temporary:
            write(result, model, temporary)
    place = int(np.argmax(result.importance))
    return ExplainResult(
        [str(output) for output in outputs],
        result.prediction,
        int(result.is_substitution.sum()),
        place + 1,
        result.insert[place],
        float(result.importance[place]),
        float(np.abs(result.effects).max()),
    )


def _writer_of(output: Path) -> Callable[[MutagenesisResult, Path, Path], None]:
    if output.suffix not in WRITERS:
        raise UserError(f"{output}: expected a name ending in {', '.join(WRITERS)}")
    expect_folder(output)
    return WRITERS[output.suffix]


def _write_page(result: MutagenesisResult, model: Path, file: Path) -> None:
    file.write_text(mutagenesis_page(result, model), encoding="utf-8")


def _write_plot(result: MutagenesisResult, _model: Path, file: Path) -> None:
    from pipeline.reporting.svg import standalone

    file.write_text(standalone(_plot(result)), encoding="utf-8")


def _write_lines(result: MutagenesisResult, _model: Path, file: Path) -> None:
    table = result.table()
    lines = [table.column_names, *zip(*(column.to_pylist() for column in table.columns), strict=True)]
    file.write_text("".join("\t".join(map(_cell, line)) + "\n" for line in lines), encoding="utf-8")


def _cell(value: str | int | float) -> str:
    return f"{value:.9g}" if isinstance(value, float) else str(value)


def _write_parquet(result: MutagenesisResult, _model: Path, file: Path) -> None:
    pa.parquet.write_table(result.table(), file)


WRITERS = {".html": _write_page, ".svg": _write_plot, ".tsv": _write_lines, ".parquet": _write_parquet}


def mutagenesis_page(result: MutagenesisResult, model: Path) -> str:
    """Return the page as HTML."""
    insert = result.insert
    facts = [
        ("predicted expression", f"{result.prediction:.3f}"),
        ("insert", insert),
        ("bases", f"{len(insert)}"),
        ("GC content", f"{sum(base in 'GC' for base in insert) / len(insert):.0%}"),
        ("substitutions predicted", f"{result.is_substitution.sum():,}"),
        ("lowest and highest of them", f"{result.predictions.min():.3f}, {result.predictions.max():.3f}"),
    ]
    numbers = "promoter-bert explain SEQUENCE -o effects.tsv"
    return render_page(
        "promoter-bert: in-silico saturation mutagenesis",
        "Each base of the insert is replaced by each other base, and the promoter is predicted again. The effects show "
        "what the model has learned; the cell may do otherwise.",
        [
            Section(
                "Prediction",
                "On the scale of the labels that the model was trained on.",
                [Table((), facts)],
                str(model),
            ),
            Section(
                TITLE,
                "Bars: importance, the mean loss of expression over the substitutions of a base. Blue bars (upwards) "
                "raise expression, as activator sites do; orange bars (downwards) lower it. Cells: the effect of one "
                "substitution, a gain (blue) or a loss (orange). Dots mark the promoter's own bases.",
                [Figures([_plot(result)])],
                numbers,
            ),
            _strongest(result, numbers),
        ],
        f"Model {model}",
    )


def _plot(result: MutagenesisResult) -> str:
    from model.interpretation.effect_plot import effect_plot, plot_height  # loads matplotlib
    from pipeline.reporting.svg import render_svg

    return render_svg("effects", TITLE, effect_plot(result), plot_height(len(result.insert)))


def _strongest(result: MutagenesisResult, source: str) -> Section:
    effects = np.where(result.is_substitution, result.effects, 0)
    if np.abs(effects).max() < SEEN:
        return Section("The strongest substitutions", f"{NONE_SEEN.capitalize()}.")
    order = np.argsort(-np.abs(effects), axis=None, kind="stable")[:STRONGEST]
    rows = [
        (f"{place + 1}", f"{result.insert[place]} → {BASES[base]}", f"{effects[place, base]:+.3f}",
         f"{result.predictions[place, base]:.3f}")
        for place, base in zip(*np.unravel_index(order, effects.shape), strict=True)
    ]  # fmt: skip
    return Section(
        "The strongest substitutions",
        "Positions are counted from 1 at the left end of the insert.",
        [Table(("position", "substitution", "effect", "prediction"), rows, frozenset({0, 2, 3}))],
        source,
    )
