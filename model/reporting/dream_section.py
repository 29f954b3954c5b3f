"""Section of a run's page on the DREAM Challenge score, from the output of `promoter-bert score --json`."""

from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from model.artifacts.json_files import read_json
from model.reporting.run_plots import Bar, bars
from model.scoring.dream import DreamScore
from pipeline.errors import UserError
from pipeline.reporting.html import Figures, Section, Table
from pipeline.reporting.palette import GREY
from pipeline.reporting.svg import HALF_WIDTH, render_svg
from pipeline.runtime.text import format_interval

LEADERBOARD = {
    "autosome.org": (0.8184, 0.8541),
    "BHI": (0.7910, 0.8446),
    "Unlock_DNA": (0.7657, 0.8229),
    "wztr": (0.7575, 0.8080),
    "Camformers": (0.7532, 0.8212),
    "reference (Vaishnav)": (0.6953, 0.7623),
}
"""Team -> Pearson Score and Spearman Score on the final leaderboard of the DREAM Challenge 2022, as published."""
LEADERBOARD_ROWS = 62_058
"""Rows of the final leaderboard: 71,103 of the test file minus 9,045 of the public leaderboard."""
KINDS = ("Pearson", "Spearman")


def read_score(path: Path) -> DreamScore:
    """Read a score from a JSON file. Raises UserError unless it is the output of `promoter-bert score --json`."""
    values = read_json(path)
    try:
        score = TypeAdapter(DreamScore).validate_python(values)
        score.subsets["all"]  # every score has this subset
    except (ValidationError, KeyError):
        raise UserError(
            f"{path}: not a DREAM Challenge score; expected the output of promoter-bert score --json"
        ) from None
    return score


def dream_section(score: DreamScore, run: str) -> Section:
    """Show the correlations of each subset, and both total scores beside those of the challenge's teams."""
    parts = {name.replace("_", " "): part for name, part in score.subsets.items()}
    rows = [
        (
            name,
            f"{part.rows:,}",
            format_interval(part.pearson, part.pearson_interval),
            format_interval(part.spearman, part.spearman_interval),
        )
        for name, part in parts.items()
    ]
    subsets = {
        "Pearson": [Bar(name, part.pearson, part.pearson_interval) for name, part in parts.items()],
        "Spearman": [Bar(name, part.spearman, part.spearman_interval) for name, part in parts.items()],
    }
    figures = [
        _figure(f"subsets-{kind}", f"{kind} by subset", f"{kind} correlation (no unit)", subsets[kind])
        for kind in KINDS
    ]
    for kind, total in zip(KINDS, (score.pearson_score, score.spearman_score), strict=True):
        figures.append(
            _figure(f"board-{kind}", f"{kind} Score", f"{kind} Score (no unit)", _leaderboard(kind, run, total))
        )
    table = Table(("subset", "rows or pairs", *KINDS), rows, frozenset({1, 2, 3}))
    return Section("DREAM Challenge", _text(score), [table, Figures(figures)])


def _text(score: DreamScore) -> str:
    total = (
        "Some subsets are missing, so there is no Pearson Score and no Spearman Score."
        if score.pearson_score is None or score.spearman_score is None
        else f"Pearson Score {score.pearson_score:.4f}, Spearman Score {score.spearman_score:.4f}."
    )
    rows = score.subsets["all"].rows
    same = "the same rows as here" if rows == LEADERBOARD_ROWS else f"not the {rows:,} rows scored here"
    return (
        f"{total} The two scores are weighted means over the subsets: of squared Pearson correlations, and of Spearman "
        "correlations. In parentheses and as lines on the bars: 95 % confidence intervals. Three subsets consist of "
        "pairs: SNVs, motif perturbation and motif tiling. For these, differences within each pair are predicted and "
        "measured. Grey bars: teams of the challenge's final leaderboard, scored on "
        f"{LEADERBOARD_ROWS:,} test rows, {same}."
    )


def _figure(name: str, title: str, x: str, rows: list[Bar]) -> str:
    return render_svg(name.lower(), title, bars(rows, x), 0.7 + 0.29 * len(rows), HALF_WIDTH)


def _leaderboard(kind: str, run: str, total: float | None) -> list[Bar]:
    """Rank the run among the teams, the best first."""
    rows = [Bar(team, scores[KINDS.index(kind)], colour=GREY) for team, scores in LEADERBOARD.items()]
    return sorted([*rows, *([] if total is None else [Bar(run, total)])], key=lambda bar: -bar.value)
