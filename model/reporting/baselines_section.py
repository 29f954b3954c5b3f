"""Section of a run's page with the baselines on the same dataset and splits."""

import shlex
from collections.abc import Sequence

from model.reporting.run_plots import Bar, bars, short_name
from model.reporting.run_sections import SCORES, interval_of
from model.runs.read import SPLITS, RunFiles, held_out_split
from pipeline.reporting.html import Figures, Section, Table
from pipeline.reporting.palette import GREY
from pipeline.reporting.svg import MIDDLE_WIDTH, render_svg
from pipeline.runtime.text import name_sequences

COLUMNS = ("Pearson", "Spearman", "R²")
"""Scores of SCORES that are shown."""
TEXT = (
    "Simpler methods, trained and scored on the same promoters. With several labels, scores are means over "
    "the labels. In parentheses and as a line on the bar: 95 % confidence intervals. Overlapping intervals do not mean "
    "that there is no difference: the command below tests it on the same promoters."
)


def baselines_section(run: RunFiles, baselines: Sequence[RunFiles]) -> list[Section]:
    """Show the scores of a run beside those of baselines on its held-out split; no section without baselines."""
    split = held_out_split(run.scores) or ""
    shown = [run, *(other for other in baselines if split in other.scores)]
    if len(shown) == 1:
        return []
    names = ["this run", *(f"{other.method} ({other.name})" for other in shown[1:])]
    scores = [each.scores[split] for each in shown]
    rows = [(name, *(SCORES[column](score) for column in COLUMNS)) for name, score in zip(names, scores, strict=True)]
    title = f"{SPLITS.get(split, split)} split"
    drawn = [
        Bar("this run", score["pearson"], interval_of(score, "pearson"))
        if each is run
        else Bar(short_name(each.name), score["pearson"], interval_of(score, "pearson"), GREY)
        for each, score in zip(shown, scores, strict=True)
    ]
    draw = bars(drawn, f"Pearson correlation, {title} (no unit)")
    folders = [str(each.folder) for each in shown]
    return [
        Section(
            "Baselines",
            name_sequences(TEXT, run.sequence_name),
            [
                Table((title, *COLUMNS), rows, frozenset(range(1, len(COLUMNS) + 1))),
                Figures([render_svg("baselines", "Baselines", draw, 0.9 + 0.32 * len(drawn), MIDDLE_WIDTH)]),
            ],
            f"promoter-bert compare {shlex.join(folders)}",
        )
    ]
