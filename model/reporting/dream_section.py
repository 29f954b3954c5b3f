"""Make the section of a run's page on the DREAM Challenge score, from the output of `promoter-bert score --json`."""

from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from model.artifacts.json_files import read_json
from model.reporting.plots import Bar, bars
from model.scoring.dream import DreamScore
from pipeline.errors import UserError
from pipeline.reporting.html import Figures, Section, Table
from pipeline.reporting.svg import BLUE, GREY, HALF_WIDTH, render_svg

BOARD = {
    "autosome.org": (0.8184, 0.8541),
    "BHI": (0.7910, 0.8446),
    "Unlock_DNA": (0.7657, 0.8229),
    "wztr": (0.7575, 0.8080),
    "Camformers": (0.7532, 0.8212),
    "reference (Vaishnav)": (0.6953, 0.7623),
}
"""Pearson Score and Spearman Score of the challenge's final leaderboard, as published."""
BOARD_ROWS = 62_058
"""Rows of the final leaderboard: the 71,103 of the test file minus the 9,045 of the public leaderboard."""
KINDS = {"pearson": "Pearson", "spearman": "Spearman"}


def read_score(path: Path) -> DreamScore:
    """Read a score. Raises UserError for a file that is not the output of `promoter-bert score --json`."""
    values = read_json(path)
    try:
        score = TypeAdapter(DreamScore).validate_python(values)
        score.subsets["all"]  # present in every score
    except (ValidationError, KeyError):
        raise UserError(f"{path}: not a DREAM score; expected the output of promoter-bert score --json") from None
    return score


def dream_section(score: DreamScore, run: str) -> Section:
    """Show the correlations of each subset, and both total scores beside those of the published teams."""
    rows = [
        (
            _title(name),
            f"{part.rows:,}",
            f"{part.pearson:.4f} ({part.pearson_interval[0]:.4f} to {part.pearson_interval[1]:.4f})",
            f"{part.spearman:.4f} ({part.spearman_interval[0]:.4f} to {part.spearman_interval[1]:.4f})",
        )
        for name, part in score.subsets.items()
    ]
    table = Table(("subset", "rows or pairs", *KINDS.values()), rows, frozenset({1, 2, 3}))
    figures = [
        _figure(f"subsets-{kind}", f"{title} by subset", title, _subset_bars(score, kind))
        for kind, title in KINDS.items()
    ]
    figures += [
        _figure(f"board-{kind}", f"{title} Score", f"{title} Score", _team_bars(score, kind, run))
        for kind, title in KINDS.items()
    ]
    return Section("DREAM Challenge", _text(score), [table, Figures(figures)])


def _text(score: DreamScore) -> str:
    total = (
        "Some subsets are missing, so there is no Pearson Score and no Spearman Score."
        if score.pearson_score is None or score.spearman_score is None
        else f"Pearson Score {score.pearson_score:.4f}, Spearman Score {score.spearman_score:.4f}."
    )
    rows = score.subsets["all"].rows
    same = "the same rows as here" if rows == BOARD_ROWS else f"not the {rows:,} rows scored here"
    return (
        f"{total} In parentheses and as lines: 95 % intervals. For pairs (SNVs, motifs), the score compares predicted "
        f"with measured differences within each pair. Grey bars: teams of the challenge's final leaderboard, scored on "
        f"{BOARD_ROWS:,} test rows, {same}."
    )


def _title(subset: str) -> str:
    return subset.replace("_", " ")


def _figure(name: str, title: str, x: str, rows: list[Bar]) -> str:
    return render_svg(name, title, bars(rows, x), 0.7 + 0.29 * len(rows), HALF_WIDTH)


def _subset_bars(score: DreamScore, kind: str) -> list[Bar]:
    return [
        Bar(_title(name), getattr(part, kind), getattr(part, f"{kind}_interval"))
        for name, part in score.subsets.items()
    ]


def _team_bars(score: DreamScore, kind: str, run: str) -> list[Bar]:
    """The run among the teams, the best first."""
    rows = [Bar(team, scores[list(KINDS).index(kind)], None, GREY) for team, scores in BOARD.items()]
    total = getattr(score, f"{kind}_score")
    if total is not None:
        rows.append(Bar(run, total, None, BLUE))
    return sorted(rows, key=lambda bar: -bar.value)
