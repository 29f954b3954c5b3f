"""Draw the inserts of generated promoters: random bases as in the challenge, or native-like ones with a grammar.

Random bases have no structure, so a masked language model can only learn their composition. Native-like inserts are
built from parts that recur, as natural promoters are: binding sites at full length, runs of A or T, and spacers.
"""

from typing import Literal

import numpy as np
import numpy.typing as npt

Inserts = npt.NDArray[np.uint8]
"""ASCII bases, (rows, bases)."""
Kind = Literal["random", "native"]

BASES = np.frombuffer(b"ACGT", np.uint8)
BASE_SHARE = np.array([0.226, 0.192, 0.281, 0.301])
"""Base composition of the challenge's training rows, in the order of BASES."""

SITES = (
    "ATGACTCAT", "TTACCCGGC", "ACACCCATACATT", "TATAAAAGGC", "CCCAATTAGGAAA", "CGGAGGACTGTCCTCCG", "TAGCCGCCGAA",
    "AAATGTGGGGAA", "TTCTAGAATATTCC", "GTCACGTGACC", "CACGAAATTC", "GTGTGGCCGGCGGC",
)  # fmt: skip
"""Binding sites, shaped like those of yeast: Gcn4, Reb1, Rap1, TATA box, Mcm1, Gal4, Ume6, Mig1, Hsf1, Cbf1, Swi4."""
RUNS = range(6, 16)
"""Lengths of runs of A or T, in bases."""
SPACERS = (2, 10)
"""Bounds of the lengths of spacers, in bases; the upper one is excluded."""
PART_SHARE = np.array([0.35, 0.08, 0.57])
"""Fractions of the parts that are sites, runs and spacers."""
SUBSTITUTION_SHARE = 0.02
"""Fraction of the bases of sites and runs that are drawn again at random."""
SHORTEST_MEAN = 6
"""Fewer bases than a part has on average, so that enough parts are drawn."""


def draw_inserts(rng: np.random.Generator, rows: int, width: int, kind: Kind) -> Inserts:
    """Draw inserts: (rows, width)."""
    if kind == "random":
        return _draw_bases(rng, (rows, width))
    return _draw_parts(rng, rows * width).reshape(rows, width)


def _draw_bases(rng: np.random.Generator, shape: tuple[int, ...]) -> Inserts:
    thresholds = np.cumsum(BASE_SHARE)[:3] * 256
    draw = rng.integers(0, 256, shape, np.uint8)
    bases: Inserts = BASES[sum((draw >= round(t)).astype(np.uint8) for t in thresholds)]
    return bases


def _draw_parts(rng: np.random.Generator, bases: int) -> Inserts:
    """Draw one long sequence of parts, (bases,). The inserts cut it, so a part may continue in the next insert."""
    sites = [site.encode() for forward in SITES for site in (forward, _reverse_complement(forward))]
    runs = [base * length for base in (b"A", b"T") for length in RUNS]
    text = np.frombuffer(b"".join([*sites, *runs]), np.uint8)
    sizes = np.array([len(part) for part in (*sites, *runs)])
    starts = np.cumsum(sizes) - sizes
    kind = rng.choice(3, bases // SHORTEST_MEAN + 1, p=PART_SHARE)
    drawn_site = rng.integers(0, len(sites), len(kind))
    drawn_run = len(sites) + rng.integers(0, len(runs), len(kind))
    part = np.where(kind == 0, drawn_site, drawn_run)
    length = np.where(kind == 2, rng.integers(*SPACERS, len(kind)), sizes[part])
    ends = np.cumsum(length)
    source = np.repeat(starts[part] - (ends - length), length) + np.arange(ends[-1])
    is_random = np.repeat(kind == 2, length)[:bases] | (rng.random(bases) < SUBSTITUTION_SHARE)
    # Places of spacers point behind the text; their bases are random.
    return np.where(is_random, _draw_bases(rng, (bases,)), text[source[:bases] % len(text)])


def _reverse_complement(site: str) -> str:
    return site[::-1].translate(str.maketrans("ACGT", "TGCA"))
