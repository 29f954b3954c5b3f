"""Plot of motif hits: a bar per site with the name of its motif, in tracks that do not overlap."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes

from model.interpretation.motifs.scan import MotifHit
from pipeline.reporting.palette import PALE_BLUE
from pipeline.runtime.text import shorten

MAX_TRACKS = 4
"""Tracks of a figure. Hits that do not fit are in the tables only."""
TRACK_INCHES = 0.24
MAX_NAME = 16
"""Characters of a motif's name in a figure."""
BASES_PER_CHARACTER = 0.62
"""Estimated width of a character of a name, in columns of a line of 50."""


@dataclass(frozen=True)
class PlacedHit:
    """A hit in a track of a figure. first, end: columns from 0, end excluded. text: the name and the strand."""

    text: str
    first: int
    end: int
    track: int


def place_hits(hits: Sequence[MotifHit], columns: Sequence[int], lines: Sequence[range]) -> tuple[list[PlacedHit], int]:
    """Place hits in tracks, the smallest p-value first; sites on both strands are one hit. Returns also those left out.

    columns: of each base of the insert; lines: columns per line of the figure.
    """
    taken: list[tuple[int, float, float]] = []
    placed: dict[tuple[int, int, int], PlacedHit] = {}
    left_out: set[tuple[int, int, int]] = set()
    for hit in hits:
        key = id(hit.motif), hit.start, hit.end  # motifs of a file may share a name
        if key in placed:
            old = placed[key]
            placed[key] = PlacedHit(old.text[:-1] + "±", old.first, old.end, old.track)
            continue
        first, last = columns[max(hit.start, 1) - 1], columns[min(hit.end, len(columns)) - 1]
        text = f"{shorten(hit.motif.name, MAX_NAME)} {hit.strand}"
        spans = [_span(text, first, last + 1, line) for line in lines if first < line.stop and last >= line.start]
        track = next((track for track in range(MAX_TRACKS) if _is_free(track, spans, taken)), None)
        if track is None:
            left_out.add(key)
            continue
        taken += [(track, *span) for span in spans]
        placed[key] = PlacedHit(text, first, last + 1, track)
    return list(placed.values()), len(left_out)


def _is_free(track: int, spans: Sequence[tuple[float, float]], taken: Sequence[tuple[int, float, float]]) -> bool:
    """Whether no span of a hit, (first, end), overlaps one that is taken in the track, (track, first, end)."""
    return all(track != other or end <= begin or start >= stop for other, start, end in taken for begin, stop in spans)


def _span(text: str, first: int, end: int, line: range) -> tuple[float, float]:
    """Return the columns that a hit and its name take in a line: first, end."""
    start = name_start(text, first, line)
    return min(start, max(first, line.start)), max(min(end, line.stop), start + _width(text))


def name_start(text: str, first: int, line: range) -> float:
    """Return the column at which a name begins: at the first one of its hit, or earlier to end within the line."""
    return max(line.start, min(max(first, line.start), line.stop - _width(text)))


def _width(text: str) -> float:
    return BASES_PER_CHARACTER * len(text) + 0.5


def count_tracks(placed: Sequence[PlacedHit], line: range) -> int:
    """Count the tracks that a line of the figure needs."""
    return max((hit.track + 1 for hit in placed if hit.first < line.stop and hit.end > line.start), default=0)


def draw_hits(axes: Axes, placed: Sequence[PlacedHit], line: range) -> None:
    """Draw the hits of a line of the figure. A hit that is cut by the end of a line has its name on both lines."""
    for hit in placed:
        first, end = max(hit.first, line.start), min(hit.end, line.stop)
        if first < end:
            axes.barh(hit.track, end - first, 0.84, left=first - 0.5, color=PALE_BLUE, linewidth=0)
            axes.text(
                name_start(hit.text, hit.first, line) - 0.35,
                hit.track,
                hit.text,
                size=7.5,
                va="center_baseline",
                clip_on=False,
            )
    axes.set_ylim(count_tracks(placed, line) - 0.5, -0.5)
    axes.set_axis_off()
