"""Write the saturation mutagenesis of a promoter: HTML page, SVG plot, TSV or Parquet table."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from model.artifacts.model_directory import find_model_folder, read_model_facts
from model.interpretation.saturation_mutagenesis import BASES, MutagenesisResult, saturation_mutagenesis
from model.prediction.validate import repaired
from pipeline.dataset.input.repairs import with_repairs
from pipeline.errors import UserError
from pipeline.io.atomic import expect_folder, new_file
from pipeline.reporting.html import Figures, Section, Table, render_page

SUFFIXES = (".html", ".svg", ".tsv", ".parquet")
SEEN = 0.0005
"""Effects below it are shown as zero in a table of three decimals."""
NONE_SEEN = f"no substitution changes the prediction by {SEEN} or more"
STRONGEST = 12
"""Substitutions in the page's table."""
TITLE = "Every substitution of the insert"
COMMAND = "promoter-bert explain SEQUENCE -o effects.tsv"


@dataclass(frozen=True)
class ExplainResult:
    """Files that `explain` wrote, and the strongest effects in them.

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
    for output in outputs:
        if output.suffix not in SUFFIXES:
            raise UserError(f"{output}: expected a name ending in {', '.join(SUFFIXES)}")
        expect_folder(output)
    model = find_model_folder(model)
    repaired([promoter], with_repairs(read_model_facts(model)["assay"], overrides))
    result = saturation_mutagenesis(model, promoter, overrides)
    for output in outputs:
        with new_file(output) as temporary:
            _write(result, model, temporary)
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


def _write(result: MutagenesisResult, model: Path, file: Path) -> None:
    table = result.table()
    if file.suffix == ".parquet":
        pq.write_table(table, file)
        return
    if file.suffix == ".html":
        text = mutagenesis_page(result, model)
    elif file.suffix == ".svg":
        text = _plot(result).replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1) + "\n"
    else:
        lines = [table.column_names, *(row.values() for row in table.to_pylist())]
        cells = ([f"{cell:.9g}" if isinstance(cell, float) else str(cell) for cell in line] for line in lines)
        text = "".join("\t".join(line) + "\n" for line in cells)
    file.write_text(text, encoding="utf-8")


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
    scale = "On the scale of the labels that the model was trained on."
    return render_page(
        "promoter-bert: in-silico saturation mutagenesis",
        "Each base of the insert is replaced by each other base, and the promoter is predicted again. The effects show "
        "what the model has learned; the cell may do otherwise.",
        [
            Section("Prediction", scale, [Table((), facts)], str(model)),
            Section(
                TITLE,
                "Bars: importance, the mean loss of expression over the substitutions of a base. Blue bars (upwards) "
                "raise expression, as activator sites do; orange bars (downwards) lower it. Cells: the effect of one "
                "substitution, a gain (blue) or a loss (orange). Dots mark the promoter's own bases.",
                [Figures([_plot(result)])],
                COMMAND,
            ),
            _strongest(result),
        ],
        f"Model {model}",
    )


def _plot(result: MutagenesisResult) -> str:
    from model.interpretation.effect_plot import render_effects  # loads matplotlib

    return render_effects(result, TITLE)


def _strongest(result: MutagenesisResult) -> Section:
    title = "The strongest substitutions"
    effects = np.where(result.is_substitution, result.effects, 0)
    if np.abs(effects).max() < SEEN:
        return Section(title, f"{NONE_SEEN.capitalize()}.")
    order = np.argsort(-np.abs(effects), axis=None, kind="stable")[:STRONGEST]
    rows = [
        (f"{place + 1}", f"{result.insert[place]} → {BASES[base]}", f"{effects[place, base]:+.3f}",
         f"{result.predictions[place, base]:.3f}")
        for place, base in zip(*np.unravel_index(order, effects.shape), strict=True)
    ]  # fmt: skip
    table = Table(("position", "substitution", "effect", "prediction"), rows, frozenset({0, 2, 3}))
    return Section(title, "Positions are counted from 1 at the left end of the insert.", [table], COMMAND)
