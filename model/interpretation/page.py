"""Writers of a saturation mutagenesis: HTML page, SVG plot, TSV or Parquet table."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from model.artifacts.model_directory import find_model_folder, read_model_facts, read_sequence_name
from model.interpretation.saturation_mutagenesis import BASES, MutagenesisResult, saturation_mutagenesis
from model.prediction.validate import repaired
from pipeline.config.schema import SEQUENCE_NAME
from pipeline.dataset.input.repairs import with_repairs
from pipeline.errors import UserError
from pipeline.io.atomic import expect_folder, new_file
from pipeline.reporting.html import Figures, Section, Table, render_page
from pipeline.reporting.text import EXPRESSION_UNIT, format_percent
from pipeline.runtime.text import format_count, name_sequences

SUFFIXES = (".html", ".svg", ".tsv", ".parquet")
MIN_VISIBLE_EFFECT = 0.0005
"""Smallest effect that is not rounded to zero in a table of three decimals, in units of the labels."""
NO_VISIBLE_EFFECT = f"no substitution changes the prediction by {MIN_VISIBLE_EFFECT} or more"
TABLE_ROWS = 12
"""Substitutions in the page's table."""
TITLE = "All substitutions in the insert"
COMMAND = "promoter-bert explain SEQUENCE -o effects.tsv"


@dataclass(frozen=True)
class ExplainResult:
    """Files that `explain` wrote, and their strongest effects, on the scale of the training labels.

    outputs: paths of the files. substitutions: number of them. position (from 1 in the insert), base: the most
    important base; loss: mean loss of expression over its substitutions, negative for a gain. largest: largest absolute
    effect of a single substitution.
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

    model: model folder or run directory. overrides: repairs of the promoter, see with_repairs. Raises UserError for an
    invalid model folder, promoter or output, before torch is loaded.
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
    place = result.most_important
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
        text = mutagenesis_page(result, model, read_sequence_name(model))
    elif file.suffix == ".svg":
        text = _plot(result).replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1) + "\n"
    else:
        lines = [table.column_names, *(row.values() for row in table.to_pylist())]
        cells = ([f"{cell:.9g}" if isinstance(cell, float) else str(cell) for cell in line] for line in lines)
        text = "".join("\t".join(line) + "\n" for line in cells)
    file.write_text(text, encoding="utf-8")


def mutagenesis_page(result: MutagenesisResult, model: Path, name: str = SEQUENCE_NAME) -> str:
    """Render the page of a saturation mutagenesis as HTML. model: folder named on the page; name: assay.name."""
    insert = result.insert
    facts = [
        ("predicted expression", f"{result.prediction:.3f}"),
        ("insert", insert),
        ("insert length", format_count(len(insert), "base")),
        ("GC content of the insert", f"{format_percent(sum(base in 'GC' for base in insert) / len(insert))}"),
        ("number of substitutions", f"{result.is_substitution.sum():,}"),
        ("lowest prediction", f"{result.predictions.min():.3f}"),
        ("highest prediction", f"{result.predictions.max():.3f}"),
        ("most important base", _most_important(result)),
    ]
    return render_page(
        "promoter-bert: in-silico saturation mutagenesis",
        name_sequences(
            "Each base of the insert is replaced by each of the other bases, one at a time. The model predicts the "
            "expression of each changed promoter. The effect of a substitution is the prediction for the changed "
            "promoter minus the prediction for the original one. These are predictions, not measurements.",
            name,
        ),
        [
            Section(
                "Prediction",
                f"{EXPRESSION_UNIT} The lowest and highest predictions include the original {name}.",
                [Table((), facts)],
                str(model),
            ),
            Section(
                TITLE,
                "The grey bars show the importance of each base: how much predicted expression falls, on average, when "
                "the base is replaced. An upward bar marks a base that raises expression, as in an activator site. A "
                "downward bar marks a base that lowers it, as in a repressor site. The letters below the bars are the "
                "insert, read from its left end.\n\n"
                "The map below the letters shows the effect of each substitution; its rows are the new bases. Blue: "
                "expression rises. Orange: expression falls. So a base that raises expression has an upward bar and "
                "mostly orange cells. A dot marks the original base.",
                [Figures([_plot(result)])],
                COMMAND,
            ),
            _strongest(result),
        ],
        f"Model {model}",
    )


def _most_important(result: MutagenesisResult) -> str:
    if np.abs(result.effects).max() < MIN_VISIBLE_EFFECT:
        return "none"
    place = result.most_important
    return f"{result.insert[place]}{place + 1}: {describe_importance(float(result.importance[place]))}"


def describe_importance(loss: float) -> str:
    """Say whether a base raises or lowers expression. loss: mean loss of expression over its substitutions."""
    return f"{'raises' if loss > 0 else 'lowers'} predicted expression (mean effect of its substitutions {-loss:+.3f})"


def _plot(result: MutagenesisResult) -> str:
    from model.interpretation.effect_plot import render_effects  # loads matplotlib

    return render_effects(result, TITLE)


def _strongest(result: MutagenesisResult) -> Section:
    title = "Strongest substitutions"
    effects = np.where(result.is_substitution, result.effects, 0)
    if np.abs(effects).max() < MIN_VISIBLE_EFFECT:
        return Section(title, f"{NO_VISIBLE_EFFECT.capitalize()}.")
    order = np.argsort(-np.abs(effects), axis=None, kind="stable")[:TABLE_ROWS]
    rows = [
        (f"{place + 1}", f"{result.insert[place]} → {BASES[base]}", f"{effects[place, base]:+.3f}",
         f"{result.predictions[place, base]:.3f}")
        for place, base in zip(*np.unravel_index(order, effects.shape), strict=True)
    ]  # fmt: skip
    table = Table(("position", "substitution", "effect", "prediction"), rows, frozenset({0, 2, 3}))
    text = (
        "The largest gains and losses of predicted expression. Position 1 is the first base of the insert. Effects and "
        "predictions have the unit of expression."
    )
    return Section(title, text, [table], COMMAND)
