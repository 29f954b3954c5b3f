"""Writers of a saturation mutagenesis: HTML page, SVG plot, TSV or Parquet table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from model.artifacts.model_directory import (
    ONE_LABEL,
    find_model_folder,
    labels_of,
    model_labels,
    read_model_facts,
    read_sequence_name,
)
from model.interpretation.saturation_mutagenesis import BASES, MutagenesisResult, choose_label, mutagenesis_by_label
from model.prediction.validate import repaired
from pipeline.dataset.input.repairs import with_repairs
from pipeline.errors import UserError
from pipeline.io.atomic import expect_folder, new_file
from pipeline.reporting.html import Figures, Section, Table, render_page
from pipeline.reporting.text import format_percent, unit_text
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


def explain(
    model: Path, promoter: str, outputs: list[Path], overrides: Sequence[str] = (), label: str | None = None
) -> ExplainResult:
    """Predict a promoter and all its substitutions, and write .html, .svg, .tsv or .parquet files by their suffix.

    model: model folder or run directory. overrides: repairs of the promoter, see with_repairs. label: its name if the
    model has several. Raises UserError for an invalid model folder, promoter, output or label, before torch is loaded.
    """
    results = explain_labels(model, promoter, outputs, overrides, label)
    return results[choose_label(list(results), label)]


def explain_labels(
    model: Path, promoter: str, outputs: list[Path], overrides: Sequence[str] = (), label: str | None = None
) -> dict[str, ExplainResult]:
    """Write the files of `explain` for all labels of a model, or for one of them. Returns the results by label.

    With several labels, tables have a column `label`, and pages have sections per label. A .svg needs `label`.
    """
    for output in outputs:
        if output.suffix not in SUFFIXES:
            raise UserError(f"{output}: expected a name ending in {', '.join(SUFFIXES)}")
        expect_folder(output)
    model = find_model_folder(model)
    facts = read_model_facts(model)
    repaired([promoter], with_repairs(facts["assay"], overrides))
    several = labels_of(facts)
    if label is not None or any(output.suffix == ".svg" for output in outputs):
        label = choose_label(model_labels(facts), label)
    results = mutagenesis_by_label(model, promoter, overrides)
    chosen = results if label is None else {label: results[label]}
    shown = chosen if several else {"": results[ONE_LABEL]}  # one label is not named
    for output in outputs:
        with new_file(output) as temporary:
            _write(shown, model, temporary)
    return {name: _summarize(result, outputs) for name, result in chosen.items()}


def _summarize(result: MutagenesisResult, outputs: list[Path]) -> ExplainResult:
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


def _write(results: Mapping[str, MutagenesisResult], model: Path, file: Path) -> None:
    """Write the results by label; the label of a model with one is empty."""
    tables = [
        result.table().append_column("label", pa.array([label] * int(result.is_substitution.sum())))
        if label
        else result.table()
        for label, result in results.items()
    ]
    table = pa.concat_tables(tables)
    if file.suffix == ".parquet":
        pq.write_table(table, file)
        return
    if file.suffix == ".html":
        text = render_effects_page(results, model, read_sequence_name(model))
    elif file.suffix == ".svg":
        (result,) = results.values()
        text = _plot(result, "").replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1) + "\n"
    else:
        lines = [table.column_names, *(row.values() for row in table.to_pylist())]
        cells = ([f"{cell:.9g}" if isinstance(cell, float) else str(cell) for cell in line] for line in lines)
        text = "".join("\t".join(line) + "\n" for line in cells)
    file.write_text(text, encoding="utf-8")


def render_effects_page(results: Mapping[str, MutagenesisResult], model: Path, name: str) -> str:
    """Render the page of a saturation mutagenesis as HTML, with sections per label.

    results: by label; the label of a model with one is empty. model: folder named on the page; name: assay.name.
    """
    sections = [
        replace(section, heading=f"{section.heading}: {label}") if label else section
        for label, result in results.items()
        for section in _sections(result, model, label, name)
    ]
    return render_page(
        "promoter-bert: in-silico saturation mutagenesis",
        name_sequences(
            "Each base of the insert is replaced by each of the other bases, one at a time. The model predicts the "
            "expression of each changed promoter. The effect of a substitution is the prediction for the changed "
            "promoter minus the prediction for the original one. These are predictions, not measurements.",
            name,
        ),
        sections,
        f"Model {model}",
    )


def _sections(result: MutagenesisResult, model: Path, label: str, name: str) -> list[Section]:
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
    return [
        Section(
            "Prediction",
            f"{unit_text(result.unit)} The lowest and highest predictions include the original {name}.",
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
            [Figures([_plot(result, label)])],
            COMMAND,
        ),
        _strongest(result),
    ]


def _most_important(result: MutagenesisResult) -> str:
    if np.abs(result.effects).max() < MIN_VISIBLE_EFFECT:
        return "none"
    place = result.most_important
    return f"{result.insert[place]}{place + 1}: {describe_importance(float(result.importance[place]))}"


def describe_importance(loss: float) -> str:
    """Say whether a base raises or lowers expression. loss: mean loss of expression over its substitutions."""
    return f"{'raises' if loss > 0 else 'lowers'} predicted expression (mean effect of its substitutions {-loss:+.3f})"


def _plot(result: MutagenesisResult, label: str) -> str:
    from model.interpretation.effect_plot import render_effects  # loads matplotlib

    return render_effects(result, f"{TITLE}: {label}" if label else TITLE, f"effects{label}")


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
