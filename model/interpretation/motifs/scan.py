"""Scan sequences for motifs on both strands, with exact p-values.

The score of a site is the log-odds of motif and background, in bits. The p-value is the probability that a random site
of the background has at least this score. It is computed exactly, by dynamic programming over the rounded scores.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from model.interpretation.motifs.meme_file import Motif, MotifFile
from model.interpretation.saturation_mutagenesis import BASES
from pipeline.errors import UserError

MAX_P_VALUE = 1e-4
"""Largest p-value of a hit, the default of FIMO."""
PSEUDOCOUNT = 0.1
"""Pseudocount added to the sites of a motif, distributed as the background; the default of FIMO."""
STEPS_PER_BIT = 100
"""Scores are rounded to this fraction of a bit."""
_CODES = np.full(256, len(BASES), np.uint8)
_CODES[np.frombuffer(BASES.encode(), np.uint8)] = range(len(BASES))


@dataclass(frozen=True)
class MotifHit:
    """Site of a motif. start, end: its first and last base in the insert, from 1; strand: + or -; score: in bits.

    A site that begins in the left adapter has a start below 1.
    """

    motif: Motif
    start: int
    end: int
    strand: str
    score: float
    p_value: float


class _ScoreMatrix:
    """Rounded scores of a motif, int64 (width, 4), and the p-values of all sums of scores."""

    def __init__(self, motif: Motif, background: npt.NDArray[np.float64]) -> None:
        self.motif = motif
        counts = motif.probabilities * motif.sites + PSEUDOCOUNT * background
        odds = counts / (motif.sites + PSEUDOCOUNT) / background
        self.scores = np.rint(STEPS_PER_BIT * np.log2(odds)).astype(np.int64)
        self.p_values = _p_values(self.scores, background)

    @cached_property
    def lowest(self) -> int:
        """The smallest possible sum of scores, which has the p-value 1."""
        return int(self.scores.min(1).sum())

    @cached_property
    def hit_share(self) -> float:
        """The probability of a hit at a random site: the largest p-value that a hit can have."""
        return float(self.p_values[self.p_values <= MAX_P_VALUE].max(initial=0))

    def hits(self, windows: npt.NDArray[np.uint8], strand: str, first: int) -> list[MotifHit]:
        """List the hits among the windows (windows, width) of base codes. first: position of the first base."""
        scores = self.scores if strand == "+" else self.scores[::-1, ::-1]
        is_known = (windows < len(BASES)).all(1)
        sums = scores[np.arange(len(scores)), np.minimum(windows, len(BASES) - 1)].sum(1)
        p_values = self.p_values[sums - self.lowest]
        return [
            MotifHit(
                self.motif, first + int(at), first + int(at) + len(scores) - 1, strand,
                float(sums[at]) / STEPS_PER_BIT, float(p_values[at]),
            )
            for at in np.flatnonzero(is_known & (p_values <= MAX_P_VALUE))
        ]  # fmt: skip


def _p_values(scores: npt.NDArray[np.int64], background: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Compute the probability of each sum of scores or a larger one, from the smallest possible sum."""
    distribution = np.ones(1)
    for row in scores - scores.min(1, keepdims=True):
        longer = np.zeros(len(distribution) + int(row.max()))
        for step, frequency in zip(row, background, strict=True):
            longer[step : step + len(distribution)] += frequency * distribution
        distribution = longer
    return np.cumsum(distribution[::-1])[::-1]  # smallest terms first


class MotifScanner:
    """Scanner for all motifs of a file. The background is averaged over both strands, as in the MEME Suite."""

    def __init__(self, file: MotifFile) -> None:
        background = (file.background + file.background[::-1]) / 2  # A with T, C with G
        if not (background > 0).all():
            raise UserError("the background of the motif file: a base has the frequency 0; expected positive ones")
        self.motifs = file.motifs
        self._matrices = [_ScoreMatrix(motif, background) for motif in file.motifs]

    @property
    def without_hits(self) -> list[Motif]:
        """The motifs whose best site has a p-value above MAX_P_VALUE, because they are short or unspecific."""
        return [matrix.motif for matrix in self._matrices if not matrix.hit_share]

    def scan(self, sequence: str, insert_start: int, insert_bases: int) -> list[MotifHit]:
        """List the hits that overlap the insert, the smallest p-value first. Sites with an N have no hits.

        sequence: with adapters, which sites may overlap; insert_start: number of the insert's first base, from 0.
        """
        codes = _CODES[np.frombuffer(sequence.encode(), np.uint8)]
        hits: list[MotifHit] = []
        for matrix in self._matrices:
            width = len(matrix.scores)
            begin, end = max(0, insert_start - width + 1), insert_start + insert_bases + width - 1
            part = codes[begin:end]
            if len(part) >= width:
                windows = np.lib.stride_tricks.sliding_window_view(part, width)
                for strand in "+-":
                    hits += matrix.hits(windows, strand, begin - insert_start + 1)
        return sorted(hits, key=lambda hit: (hit.p_value, hit.start))

    def expected_by_chance(self, insert_bases: int, adapter_bases: tuple[int, int]) -> float:
        """Return the mean number of hits that overlap an insert of this length in random bases of the background.

        adapter_bases: lengths of the left and right adapter, in which sites may begin and end.
        """
        return sum(
            2 * _count_sites(len(matrix.scores), insert_bases, adapter_bases) * matrix.hit_share
            for matrix in self._matrices
        )


def _count_sites(width: int, insert_bases: int, adapter_bases: tuple[int, int]) -> int:
    """Count the sites of a width that overlap the insert, on one strand."""
    scanned = insert_bases + sum(min(bases, width - 1) for bases in adapter_bases)
    return max(0, scanned - width + 1)
