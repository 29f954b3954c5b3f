"""Saturation mutagenesis of one sequence: HTML page, SVG or PNG figure, TSV or Parquet table."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from model.artifacts.model_directory import (
    ONE_LABEL,
    find_model_folder,
    labels_of,
    model_labels,
    read_model_facts,
    read_sequence_name,
)
from model.interpretation.command import table_command
from model.interpretation.explained import ExplainedRow, ExplainedSequence
from model.interpretation.motifs.meme_file import read_motifs
from model.interpretation.motifs.scan import MotifHit, MotifScanner
from model.interpretation.outputs import FIGURE_SUFFIXES, check_outputs, open_outputs
from model.interpretation.saturation_mutagenesis import MutagenesisResult, choose_label, mutagenesis_by_label
from model.interpretation.sections import (
    LEAD,
    LOGO_TEXT,
    MAP_TEXT,
    NO_VISIBLE_EFFECT,
    PageFacts,
    describe_hits_found,
    hits_table,
    motif_text,
    sequence_rows,
    strongest_table,
)
from model.prediction.assay_fit import AssayFit
from model.prediction.validate import repaired
from pipeline.dataset.input.repairs import with_repairs
from pipeline.reporting.html import Figures, Section, Table, render_page
from pipeline.reporting.text import unit_text
from pipeline.runtime.text import name_sequences

TITLE = "All substitutions in the insert"


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
    """Predict a promoter and all its substitutions, and write .html, .svg, .png, .tsv or .parquet files by suffix.

    model: model folder or run directory. overrides: repairs of the promoter, see with_repairs. label: its name if the
    model has several. Raises UserError for an invalid model folder, promoter, output or label, before torch is loaded.
    """
    name = choose_label(model_labels(read_model_facts(find_model_folder(model))), label)
    return explain_labels(model, promoter, outputs, overrides, label and name)[name]


def explain_labels(
    model: Path,
    promoter: str,
    outputs: list[Path],
    overrides: Sequence[str] = (),
    label: str | None = None,
    motifs: Path | None = None,
    warn: Callable[[str], None] = lambda _: None,
) -> dict[str, ExplainResult]:
    """Write the files of `explain` for all labels of a model, or for one of them. Returns the results by label.

    With several labels, tables have a column `label`, and pages have sections per label. A figure needs `label`.
    motifs: MEME file, whose hits are drawn and written. warn: called with a warning of a promoter that is not of the
    model's assay.
    """
    check_outputs(outputs, motifs)
    model = find_model_folder(model)
    facts = read_model_facts(model)
    assay = with_repairs(facts["assay"], overrides)
    (valid,) = repaired([promoter], assay).to_pylist()
    several = labels_of(facts)
    if label is not None or any(output.suffix in FIGURE_SUFFIXES for output in outputs):
        label = choose_label(model_labels(facts), label)
    scanner = None if motifs is None else MotifScanner(read_motifs(motifs))
    fit = AssayFit(facts, assay, warn, unseen_share=0)
    fit.add(pa.array([promoter]), pa.array([valid]))
    fit.finish()
    results = mutagenesis_by_label(model, promoter, overrides)
    chosen = results if label is None else {label: results[label]}
    insert = next(iter(results.values())).insert
    adapters = len(assay.left_adapter), len(assay.right_adapter)
    hits = scanner.scan(valid, adapters[0], len(insert)) if scanner else None
    row = ExplainedRow({"": ExplainedSequence(chosen, hits)})
    command = table_command(model, label=label, motifs=motifs, overrides=overrides)
    page_facts = PageFacts(
        model, read_sequence_name(model), facts.get("insert_lengths"), adapters, scanner, motifs, command
    )

    def render() -> str:
        shown = chosen if several else {"": results[ONE_LABEL]}  # one label is not named
        return _render(shown, page_facts, hits)

    with open_outputs(outputs, several_labels=bool(several), are_named=False) as writer:
        writer.add(row)
        writer.draw(render)
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


def render_effects_page(results: Mapping[str, MutagenesisResult], facts: PageFacts) -> str:
    """Render the page of a saturation mutagenesis without motifs as HTML, with sections per label.

    results: by label; the label of a model with one is empty.
    """
    return _render(results, facts, None)


def _render(results: Mapping[str, MutagenesisResult], facts: PageFacts, hits: Sequence[MotifHit] | None) -> str:
    sequence = ExplainedSequence(results, hits)
    sections = [
        replace(section, heading=f"{section.heading}: {label}") if label else section
        for label in results
        for section in _sections(sequence, label, facts)
    ]
    return render_page(
        "promoter-bert: in-silico saturation mutagenesis",
        name_sequences(LEAD, facts.name),
        sections,
        f"Model {facts.model}",
    )


def _sections(sequence: ExplainedSequence, label: str, facts: PageFacts) -> list[Section]:
    from model.interpretation.figures import render_row  # loads matplotlib

    result = sequence.results[label]
    title = f"{TITLE}: {label}" if label else TITLE
    svg, left_out = render_row(ExplainedRow({"": sequence}), label, title, f"effects{label}")
    more = f" {left_out:,} hits have no room in the figure." if left_out else ""
    texts = [LOGO_TEXT, MAP_TEXT, f"{motif_text(facts)}{more}"]
    return [
        Section(
            "Prediction",
            f"{unit_text(result.unit)} The lowest and highest predictions include the original {facts.name}.",
            [Table((), sequence_rows(result, facts))],
            str(facts.model),
        ),
        Section(TITLE, "\n\n".join(texts), [Figures([svg])], facts.command),
        *_hits_section(sequence, label, facts),
        _strongest(result, facts),
    ]


def _hits_section(sequence: ExplainedSequence, label: str, facts: PageFacts) -> list[Section]:
    if sequence.hits is None:
        return []
    text = (
        f"{describe_hits_found(sequence.hits, sequence.insert, facts)}. Position 1 is the first base of the insert; "
        "sites may overlap the adapters. Mean importance is that of the bases of the site."
    )
    table = hits_table(sequence, label)
    return [Section("Motif hits", text, [table] if table else [], facts.command)]


def _strongest(result: MutagenesisResult, facts: PageFacts) -> Section:
    title, table = "Strongest substitutions", strongest_table(result)
    if table is None:
        return Section(title, f"{NO_VISIBLE_EFFECT.capitalize()}.")
    text = (
        "The largest gains and losses of predicted expression. Position 1 is the first base of the insert. Effects and "
        "predictions have the unit of expression."
    )
    return Section(title, text, [table], facts.command)
