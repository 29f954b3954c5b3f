"""HTML page of several explained rows: an overview, then a section per row and label."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from model.interpretation.explained import (
    ALTERNATIVE,
    REFERENCE,
    ExplainedRow,
    describe_change,
)
from model.interpretation.outputs import TABLE_SUFFIXES
from model.interpretation.saturation_mutagenesis import MutagenesisResult
from model.interpretation.sections import (
    LEAD,
    LOGO_TEXT,
    MAP_TEXT,
    MIN_VISIBLE_EFFECT,
    NO_VISIBLE_EFFECT,
    VARIANT_TEXT,
    PageFacts,
    hits_fold,
    motif_text,
    sequence_rows,
    strongest_table,
    variant_rows,
)
from pipeline.reporting.html import Content, Figures, Fold, Section, Table, render_page
from pipeline.reporting.text import unit_text
from pipeline.runtime.text import format_count, name_sequences

VARIANTS_LEAD = (
    "The effect of a variant is the prediction for the alternative sequence minus that for the reference sequence. The "
    "importance of each base comes from the predictions for all single substitutions of each of the two sequences. "
    "These are predictions, not measurements."
)


@dataclass(frozen=True)
class RowCounts:
    """Rows of a request.

    read: of the input, valid or not; invalid: without a prediction; total: 0 if unknown. is_complete: whether all rows
    were read. rejected: number, name and problem of the first invalid rows.
    """

    read: int
    invalid: int
    total: int
    is_complete: bool
    outputs: Sequence[Path]
    rejected: Sequence[tuple[int, str, str]] = ()


def render_rows_page(rows: Sequence[ExplainedRow], several_labels: bool, counts: RowCounts, facts: PageFacts) -> str:
    """Render the page of the drawn rows. several_labels: whether the model has several, so that they are named."""
    overview, draw = (_variants_overview, _variant_contents) if rows[0].is_variant else (_overview, _contents)
    views = [(row, label) for row in rows for label in row.labels]
    sections = [
        Section(_heading(row, label, several_labels), "", draw(row, label, f"effects{number}", facts))
        for number, (row, label) in enumerate(views)
    ]
    lead = VARIANTS_LEAD if rows[0].is_variant else LEAD
    how = [VARIANT_TEXT, LOGO_TEXT] if rows[0].is_variant else [LOGO_TEXT, MAP_TEXT]
    table = overview(views, several_labels)
    unit = next(iter(rows[0].main.results.values())).unit
    return render_page(
        "promoter-bert: in-silico saturation mutagenesis",
        name_sequences(lead, facts.name),
        [
            Section(
                "Overview",
                f"{_describe_counts(rows, counts, facts)} {unit_text(unit)}",
                [table, *_rejected_table(counts)],
                facts.command,
            ),
            Section("How to read the figures", "\n\n".join([*how, motif_text(facts)])),
            *sections,
        ],
        f"Model {facts.model}",
    )


def _heading(row: ExplainedRow, label: str, is_label_named: bool) -> str:
    return f"{row.title}: {label}" if is_label_named else row.title


def _describe_counts(rows: Sequence[ExplainedRow], counts: RowCounts, facts: PageFacts) -> str:
    """Say which rows are drawn, and which file has the others."""
    unit = "variant" if rows[0].is_variant else facts.name
    explained = counts.read - counts.invalid
    tables = [output.name for output in counts.outputs if output.suffix in TABLE_SUFFIXES]
    invalid = f" {format_count(counts.invalid, 'row')} had no prediction." if counts.invalid else ""
    if tables and len(rows) < explained:
        return (
            f"The page shows {_first(len(rows))} of {format_count(explained, unit)}. {' and '.join(tables)}: the "
            f"substitutions of all of them.{invalid}"
        )
    if len(rows) < explained or not counts.is_complete:
        among = f" of {counts.total:,} rows" if counts.total else ""
        units = unit if len(rows) == 1 else f"{unit}s"
        return f"The page shows {_first(len(rows))} {units}{among}. Add -o effects.tsv to explain all of them.{invalid}"
    shown = f"the only {unit}" if explained == 1 else f"all {format_count(explained, unit)}"
    return f"The page shows {shown}.{invalid}"


def _first(rows: int) -> str:
    return "the first" if rows == 1 else f"the first {rows:,}"


def _rejected_table(counts: RowCounts) -> list[Content]:
    """Make a table of the first rows without a prediction, if there are any."""
    rows = [(f"{number:,}", name, problem) for number, name, problem in counts.rejected]
    more = counts.invalid - len(rows)
    if rows and more:
        rows.append(("", "", f"and {format_count(more, 'more row')}"))
    return [Table(("row without a prediction", "name", "reason"), rows)] if rows else []


def _overview(views: Sequence[tuple[ExplainedRow, str]], several_labels: bool) -> Table:
    results = [row.main.results[label] for row, label in views]
    rows = [
        (_heading(*view, several_labels), f"{len(result.insert):,}", f"{result.prediction:.3f}", *_important(result))
        for view, result in zip(views, results, strict=True)
    ]
    return Table(
        ("name", "insert bases", "prediction", "most important base", "importance"), rows, frozenset({1, 2, 4})
    )


def _important(result: MutagenesisResult) -> tuple[str, str]:
    """Return the most important base with its position, and its importance; empty texts if no effect is visible."""
    if np.abs(result.effects).max() < MIN_VISIBLE_EFFECT:
        return "none", ""
    place = result.most_important
    return f"{result.insert[place]}{place + 1}", f"{result.importance[place]:+.3f}"


def _variants_overview(views: Sequence[tuple[ExplainedRow, str]], several_labels: bool) -> Table:
    rows = [
        (
            _heading(row, label, several_labels),
            describe_change(row.sides[REFERENCE].insert, row.sides[ALTERNATIVE].insert),
            *(f"{sequence.results[label].prediction:.3f}" for sequence in row.sides.values()),
            f"{row.effect(label):+.3f}",
        )
        for row, label in views
    ]
    return Table(("name", "variant", "reference", "alternative", "effect"), rows, frozenset({2, 3, 4}))


def _contents(row: ExplainedRow, label: str, name: str, facts: PageFacts) -> list[Content]:
    result = row.main.results[label]
    figure, more = _figure(row, label, name)
    strongest = strongest_table(result)
    folds = [Fold("strongest substitutions", strongest)] if strongest else []
    note = [] if strongest else [("effects", NO_VISIBLE_EFFECT)]
    return [
        figure,
        Table((), [*sequence_rows(result, facts), *note, *more]),
        *folds,
        *hits_fold(row.main, label, facts),
    ]


def _variant_contents(row: ExplainedRow, label: str, name: str, facts: PageFacts) -> list[Content]:
    figure, more = _figure(row, label, name)
    folds = [fold for side, sequence in row.sides.items() for fold in hits_fold(sequence, label, facts, side)]
    return [figure, Table((), [*variant_rows(row, label, facts), *more]), *folds]


def _figure(row: ExplainedRow, label: str, name: str) -> tuple[Figures, list[tuple[str, str]]]:
    """Return the figure of a row, and the fact that motif hits have no room in it, if there are such."""
    from model.interpretation.figures import describe_row, render_row  # loads matplotlib

    svg, left_out = render_row(row, label, describe_row(row, label, is_label_named=True), name)
    return Figures([svg]), [("motif hits not drawn", f"{left_out:,}, for lack of room")] if left_out else []
