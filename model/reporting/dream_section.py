"""The section of a run's page on the DREAM Challenge's score, from what `promoter-bert score --json` printed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.artifacts.json_files import read_json
from model.reporting.plots import Bar, bars
from pipeline.errors import UserError
from pipeline.reporting.html import Figures, Section, Table
from pipeline.reporting.svg import BLUE, GREY, HALF_WIDTH, svg

BOARD = {
    "autosome.org": (0.8184, 0.8541),
    "BHI": (0.7910, 0.8446),
    "Unlock_DNA": (0.7657, 0.8229),
    "wztr": (0.7575, 0.8080),
    "Camformers": (0.7532, 0.8212),
    "reference (Vaishnav)": (0.6953, 0.7623),
}
"""Pearson Score and Spearman Score of the challenge's final board, as published."""
BOARD_ROWS = 62_058
"""Rows that the board is of: the 71,103 of the test file without the 9,045 of the public leaderboard."""
KINDS = {"pearson": "Pearson", "spearman": "Spearman"}


@dataclass(frozen=True)
class Subset:
    """rows: rows or pairs; scores and their intervals by name, pearson and spearman."""

    rows: int
    scores: dict[str, float]
    intervals: dict[str, tuple[float, float]]


@dataclass(frozen=True)
class Scored:
    """A score file. totals: None each where a subset was missing."""

    subsets: dict[str, Subset]
    totals: dict[str, float | None]


def read_score(path: Path) -> Scored:
    """Raises UserError for what is not the output of `promoter-bert score --json`."""
    values = read_json(path)
    try:
        subsets = {name: _subset(found) for name, found in values["subsets"].items()}
        totals = {name: None if values[f"{name}_score"] is None else float(values[f"{name}_score"]) for name in KINDS}
        subsets["all"]  # every score has it
    except (KeyError, TypeError, ValueError, AttributeError):
        raise UserError(f"{path}: no challenge score; expected what promoter-bert score --json prints") from None
    return Scored(subsets, totals)


def _subset(found: Mapping[str, Any]) -> Subset:
    intervals = {name: (float(found[f"{name}_interval"][0]), float(found[f"{name}_interval"][1])) for name in KINDS}
    return Subset(int(found["rows"]), {name: float(found[name]) for name in KINDS}, intervals)


def challenge_section(scored: Scored, run: str) -> Section:
    """Each subset's correlations with their intervals, and both scores beside the published teams'."""
    rows = [
        (name.replace("_", " "), f"{part.rows:,}", *(_said(part, kind) for kind in KINDS))
        for name, part in scored.subsets.items()
    ]
    table = Table(("subset", "rows or pairs", *KINDS.values()), rows, frozenset({1, 2, 3}))
    pictures = []
    for kind, title in KINDS.items():
        parts = _by_subset(scored, kind)
        pictures.append(svg(f"subsets-{kind}", f"{title} by subset", _height(parts), bars(parts, title), HALF_WIDTH))
    for kind, title in KINDS.items():
        totals = _beside_teams(scored, kind, run)
        heading = f"{title} Score"
        pictures.append(svg(f"board-{kind}", heading, _height(totals), bars(totals, heading), HALF_WIDTH))
    return Section("Challenge", _says(scored), [table, Figures(pictures)])


def _says(scored: Scored) -> str:
    pearson, spearman = scored.totals["pearson"], scored.totals["spearman"]
    total = (
        "Not every subset was scored, so there is no Pearson Score and no Spearman Score."
        if pearson is None or spearman is None
        else f"Pearson Score {pearson:.4f}, Spearman Score {spearman:.4f}."
    )
    rows = scored.subsets["all"].rows
    same = "the same rows" if rows == BOARD_ROWS else f"other rows than these {rows:,}"
    return (
        f"{total} In parentheses and as lines: 95 % intervals. Of pairs (SNVs, motifs) it is the difference that is "
        f"predicted. Teams: the challenge's final board, over {BOARD_ROWS:,} test rows, {same}."
    )


def _height(rows: Sequence[Bar]) -> float:
    return 0.7 + 0.29 * len(rows)


def _said(part: Subset, kind: str) -> str:
    low, high = part.intervals[kind]
    return f"{part.scores[kind]:.4f} ({low:.4f} to {high:.4f})"


def _by_subset(scored: Scored, kind: str) -> list[Bar]:
    return [
        Bar(name.replace("_", " "), part.scores[kind], part.intervals[kind]) for name, part in scored.subsets.items()
    ]


def _beside_teams(scored: Scored, kind: str, run: str) -> list[Bar]:
    """Best first."""
    found = [Bar(team, scores[list(KINDS).index(kind)], None, GREY) for team, scores in BOARD.items()]
    total = scored.totals[kind]
    if total is not None:
        found.append(Bar(run, total, None, BLUE))
    return sorted(found, key=lambda bar: -bar.value)
