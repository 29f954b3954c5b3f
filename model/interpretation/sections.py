"""Contents of the pages of `explain`: facts, figures and tables of an explained sequence."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from model.interpretation.explained import (
    ALTERNATIVE,
    REFERENCE,
    ExplainedRow,
    ExplainedSequence,
    describe_change,
)
from model.interpretation.motifs.scan import MAX_P_VALUE, MotifHit, MotifScanner
from model.interpretation.saturation_mutagenesis import BASES, MutagenesisResult
from pipeline.reporting.html import Fold, Table
from pipeline.reporting.text import format_percent
from pipeline.runtime.text import format_count

MIN_VISIBLE_EFFECT = 0.0005
"""Smallest effect that is not rounded to zero in a table of three decimals, in units of the labels."""
NO_VISIBLE_EFFECT = f"no substitution changes the prediction by {MIN_VISIBLE_EFFECT} or more"
TABLE_ROWS = 12
"""Rows of a table of substitutions or of motif hits."""
LEAD = (
    "Each base of the insert is replaced by each of the other bases, one at a time. The model predicts the expression "
    "of each changed promoter. The effect of a substitution is the prediction for the changed promoter minus the "
    "prediction for the original one. These are predictions, not measurements."
)
LOGO_TEXT = (
    "The height of each letter is the importance of its base: how much predicted expression falls, on average, when "
    "the base is replaced. An upright letter marks a base that raises expression, as in an activator site. A letter "
    "upside down, below the line, marks a base that lowers it, as in a repressor site. Importance has the unit of "
    "expression. The letters of equal size below are the insert, read from its left end."
)
MAP_TEXT = (
    "The map below the letters shows the effect of each substitution; its rows are the new bases. Blue: expression "
    "rises. Orange: expression falls. So a base that raises expression has an upright letter and mostly orange cells. "
    "A dot marks the original base."
)
VARIANT_TEXT = (
    "The figures show both sides of a variant, the reference above the alternative, on one scale. A coloured "
    "background marks the bases that differ; a dash is a gap. The bars below show how the importance of each base "
    "changes, from the reference to the alternative. The importance on each side comes from its own substitutions."
)


@dataclass(frozen=True)
class PageFacts:
    """Facts of the model and the request that a page shows.

    model: folder named on the page. name: assay.name. insert_lengths: shortest and longest insert of the training, None
    if the model does not record them. adapter_bases: lengths of the adapters. scanner: of the motifs, None for none;
    motif_file: named on the page. command: writes the table of the page; see table_command.
    """

    model: Path
    name: str
    insert_lengths: Sequence[int] | None = None
    adapter_bases: tuple[int, int] = (0, 0)
    scanner: MotifScanner | None = None
    motif_file: Path | None = None
    command: str = ""


def describe_length(insert: str, facts: PageFacts) -> str:
    """Write the length of an insert, with a warning if no training insert is as short or as long."""
    text = format_count(len(insert), "base")
    if facts.insert_lengths is None:
        return text
    shortest, longest = facts.insert_lengths
    if shortest <= len(insert) <= longest:
        return text
    trained = format_count(longest, "base") if shortest == longest else f"{shortest:,} to {longest:,} bases"
    return f"{text}; the model was trained on {trained}, so its predictions are unreliable"


def sequence_rows(result: MutagenesisResult, facts: PageFacts) -> list[tuple[str, str]]:
    """List facts of a sequence, for a table of two columns."""
    insert = result.insert
    return [
        ("predicted expression", f"{result.prediction:.3f}"),
        ("insert", insert),
        ("insert length", describe_length(insert, facts)),
        ("GC content of the insert", f"{format_percent(sum(base in 'GC' for base in insert) / len(insert))}"),
        ("number of substitutions", f"{result.is_substitution.sum():,}"),
        ("lowest prediction", f"{result.predictions.min():.3f}"),
        ("highest prediction", f"{result.predictions.max():.3f}"),
        ("most important base", most_important(result)),
    ]


def variant_rows(row: ExplainedRow, label: str, facts: PageFacts) -> list[tuple[str, str]]:
    """List facts of a variant, for a table of two columns."""
    reference, alternative = row.sides[REFERENCE], row.sides[ALTERNATIVE]
    sides = reference.results[label], alternative.results[label]
    single = np.abs(sides[0].effects[sides[0].is_substitution])
    share = float((single < abs(row.effect(label))).mean())
    rows = [
        ("variant, by position in the insert", describe_change(reference.insert, alternative.insert)),
        ("reference prediction", f"{sides[0].prediction:.3f}"),
        ("alternative prediction", f"{sides[1].prediction:.3f}"),
        ("effect", f"{row.effect(label):+.3f}"),
        ("absolute effect above that of", f"{format_percent(share, 0)} of the single substitutions in the reference"),
        ("reference insert length", describe_length(reference.insert, facts)),
        ("alternative insert length", describe_length(alternative.insert, facts)),
        ("most important base of the reference", most_important(sides[0])),
        ("most important base of the alternative", most_important(sides[1])),
    ]
    if reference.hits is None or alternative.hits is None:
        return rows
    motifs = [sorted({hit.motif.title for hit in side.hits or ()}) for side in (reference, alternative)]
    lost, gained = (sorted(set(one) - set(other)) for one, other in (motifs, motifs[::-1]))
    return [*rows, ("motifs lost", ", ".join(lost) or "none"), ("motifs gained", ", ".join(gained) or "none")]


def most_important(result: MutagenesisResult) -> str:
    """Name the most important base, and whether it raises or lowers expression."""
    if np.abs(result.effects).max() < MIN_VISIBLE_EFFECT:
        return "none"
    place = result.most_important
    return f"{result.insert[place]}{place + 1}: {describe_importance(float(result.importance[place]))}"


def describe_importance(loss: float) -> str:
    """Say whether a base raises or lowers expression. loss: mean loss of expression over its substitutions."""
    return f"{'raises' if loss > 0 else 'lowers'} predicted expression (mean effect of its substitutions {-loss:+.3f})"


def strongest_table(result: MutagenesisResult) -> Table | None:
    """Return a table of the largest gains and losses; None if no effect is visible."""
    effects = np.where(result.is_substitution, result.effects, 0)
    if np.abs(effects).max() < MIN_VISIBLE_EFFECT:
        return None
    order = np.argsort(-np.abs(effects), axis=None, kind="stable")[:TABLE_ROWS]
    rows = [
        (f"{place + 1}", f"{result.insert[place]} → {BASES[base]}", f"{effects[place, base]:+.3f}",
         f"{result.predictions[place, base]:.3f}")
        for place, base in zip(*np.unravel_index(order, effects.shape), strict=True)
    ]  # fmt: skip
    return Table(("position", "substitution", "effect", "prediction"), rows, frozenset({0, 2, 3}))


def motif_text(facts: PageFacts) -> str:
    """Describe the motifs of a page, and what a hit is; empty without motifs."""
    if facts.scanner is None:
        return ""
    count = format_count(len(facts.scanner.motifs), "motif")
    short = facts.scanner.without_hits
    names = ", ".join(motif.title for motif in short[:TABLE_ROWS])
    more = f" and {len(short) - TABLE_ROWS:,} more" if len(short) > TABLE_ROWS else ""
    unmatched = (
        f" {format_count(len(short), 'motif')} cannot reach this p-value, too short or too unspecific: {names}{more}."
        if short
        else ""
    )
    return (
        f"The bars above the letters are sites of the {count} of {facts.motif_file}, on the strand + or -; ± is both. "
        f"A hit has a p-value of at most {MAX_P_VALUE:g} for a single random site, which is not corrected for the "
        f"number of sites and motifs. A hit says that the bases fit, not that the model or a factor uses them."
        f"{unmatched}"
    )


def hits_table(sequence: ExplainedSequence, label: str) -> Table | None:
    """Return a table of the motif hits with the smallest p-values; None if there are none."""
    if not sequence.hits:
        return None
    importance = sequence.results[label].importance
    rows = [
        (hit.motif.title, f"{hit.start} to {hit.end}", hit.strand, f"{hit.score:.2f}", f"{hit.p_value:.1e}",
         f"{importance[max(hit.start, 1) - 1 : hit.end].mean():+.3f}")
        for hit in sequence.hits[:TABLE_ROWS]
    ]  # fmt: skip
    heads = ("motif", "positions", "strand", "score (bits)", "p-value", "mean importance")
    return Table(heads, rows, frozenset({3, 4, 5}))


def describe_hits_found(hits: Sequence[MotifHit], insert: str, facts: PageFacts) -> str:
    """Say how many hits a sequence has, and how many a random one of its length would have."""
    assert facts.scanner is not None
    chance = facts.scanner.expected_by_chance(len(insert), facts.adapter_bases)
    listed = f"; the {TABLE_ROWS} with the smallest p-values are listed" if len(hits) > TABLE_ROWS else ""
    return f"{format_count(len(hits), 'motif hit')}, {chance:.2g} expected by chance{listed}"


def hits_fold(sequence: ExplainedSequence, label: str, facts: PageFacts, side: str = "") -> list[Fold]:
    """Return the folded table of motif hits; empty if there are none. side: of a variant."""
    table = hits_table(sequence, label)
    if table is None or sequence.hits is None:
        return []
    title = describe_hits_found(sequence.hits, sequence.insert, facts)
    return [Fold(f"{side}: {title}" if side else title, table)]
