"""Generate promoters in the format of the DREAM Challenge, with learnable expression and a known ceiling.

1. Draw inserts with the lengths and N of the challenge's training rows (synthetic/inserts.py).
2. Compute noise-free expression: sum the gains and losses of motif hits, weighted by position, then saturate.
3. Simulate the assay: add noise; a promoter seen in one sorting bin only gets a whole number.

Each block of rows has its own random stream. So a file is the same on all machines, and a shorter file is the beginning
of a longer one.
"""

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from pipeline.dataset.synthetic.inserts import BASES, Kind, draw_inserts
from pipeline.errors import UserError
from pipeline.io.atomic import new_file

Values = npt.NDArray[np.float64]

LEFT_ADAPTER = b"TGCATTTTTTTCACATC"
RIGHT_ADAPTER = b"GGTTACGGCTGTT"
# Insert lengths of real rows: 80 nominally, mostly shorter by a synthesis error; the tails are thin.
LENGTHS = np.array([57, 68, 74, 77, 78, 79, 80, 81, 82, 84, 92, 105])
LENGTH_SHARE = np.array([0.001, 0.002, 0.003, 0.006, 0.024, 0.128, 0.82, 0.005, 0.004, 0.003, 0.002, 0.002])
N_ROW_SHARE = 0.0039
"""Fraction of rows with a stretch of N."""

LOWEST, HIGHEST = 4.5, 16.0
"""Bounds at which the noise-free expression saturates, on the assay's scale of 0 to 17."""
BASAL = 0.3
"""Logit of the expression of an insert without any motif."""
NOISE_SD: dict[Kind, float] = {"random": 1.6, "native": 2.2}
"""Noise of the labels, by the kind of the inserts. Native-like ones differ more in expression, and have more noise."""
WHOLE_NUMBER_SHARE = 0.58
"""Fraction of promoters seen in one sorting bin only: their label is a whole number."""

BLOCK_ROWS = 65_536
SCHEMA = pa.schema([("sequence", pa.string()), ("expression", pa.float64())])
MOTIF_WIDTH = 6


# Binding sites of yeast transcription factors, shortened so that each promoter contains some. The gains are invented.
# Short motifs act like an effect of base composition; long ones are single sites with a large effect.
MOTIFS = {
    "Gcn4-like": (0.9, "TGACTN AGTCAN"),
    "Reb1-like": (0.8, "TTACCN GGTAAN"),
    "Rap1-like": (0.6, "CCCATN ATGGGN"),
    "TATA-like": (0.5, "TATANN"),
    "poly-dA:dT": (0.16, "AAANNN TTTNNN"),
    "Ume6-like": (-0.8, "GGCGGN CCGCCN"),
    "Mig1-like": (-0.7, "GTGGGN CCCACN"),
    "Gal4-like": (-0.25, "CGGNNN CCGNNN"),
    "Rgt1-like": (-0.2, "GTGNNN CACNNN"),
}
"""Gain of the logit of expression per hit, and the sites: six letters ACGTN, where N is any base."""


def motif_table() -> npt.NDArray[np.float32]:
    """Compute the gain of each six-mer, in base-5 order over ACGTN and 0 for one with an N: (15625,) float32."""
    table = np.zeros(5**MOTIF_WIDTH, np.float32)
    for gain, sites in MOTIFS.values():
        for site in sites.split():
            for digits in itertools.product(*("0123" if base == "N" else str("ACGT".index(base)) for base in site)):
                table[int("".join(digits), 5)] += gain
    return table


def true_expression(inserts: npt.NDArray[np.uint8], lengths: npt.NDArray[np.int64]) -> Values:
    """Compute the noise-free expression of each insert, between LOWEST and HIGHEST: (rows,).

    inserts: (rows, width) ASCII, ignored after a row's length, width >= 6; lengths: (rows,). The weight of a hit rises
    from 0.5 at the upstream end of the insert to 1.5 at the downstream end, nearest to the start of transcription.
    """
    digit_of = np.full(256, 4, np.uint8)
    digit_of[BASES] = np.arange(4)
    digits = digit_of[inserts]
    sites = inserts.shape[1] - MOTIF_WIDTH + 1
    codes = np.zeros((len(inserts), sites), np.uint16)
    for i in range(MOTIF_WIDTH):
        codes *= 5
        codes += digits[:, i : i + sites]
    weights = 0.5 + np.arange(sites, dtype=np.float32)[None, :] / np.maximum(lengths[:, None] - MOTIF_WIDTH, 1)
    inside = np.arange(sites)[None, :] + MOTIF_WIDTH <= lengths[:, None]
    gains = motif_table()[codes] * weights.astype(np.float32)
    logit = BASAL + np.where(inside, gains, 0).sum(1, dtype=np.float64)
    return np.asarray(LOWEST + (HIGHEST - LOWEST) / (1 + np.exp(-logit)))


def true_expression_of(promoters: list[str]) -> Values:
    """Compute the noise-free expression of promoters as text, adapters included: (len(promoters),)."""
    inserts = [p.encode()[len(LEFT_ADAPTER) : len(p) - len(RIGHT_ADAPTER)] for p in promoters]
    lengths = np.array([len(insert) for insert in inserts], np.int64)
    width = max(int(lengths.max(initial=0)), MOTIF_WIDTH)
    rows = np.frombuffer(b"".join(i.ljust(width, b"N") for i in inserts), np.uint8).reshape(-1, width)
    return true_expression(rows, lengths)


def generate_block(rows: int, seed: int, block: int, kind: Kind = "random") -> tuple[pa.Array, Values, Values]:
    """Generate rows `block * BLOCK_ROWS` and following of the file with this seed.

    Returns promoters as strings, their labels, and their noise-free expression: (rows,) each.
    """
    rng = np.random.default_rng([seed, block])
    # Always draw a whole block, so that a shorter file is the beginning of a longer one.
    lengths = rng.choice(LENGTHS, BLOCK_ROWS, p=LENGTH_SHARE / LENGTH_SHARE.sum())
    width = int(LENGTHS.max())
    inserts = draw_inserts(rng, BLOCK_ROWS, width, kind)
    for row in np.flatnonzero(rng.random(BLOCK_ROWS) < N_ROW_SHARE):
        start = rng.integers(0, 60)
        inserts[row, start : start + rng.integers(1, 32)] = ord("N")
    truth = true_expression(inserts, lengths)
    label = np.clip(truth + NOISE_SD[kind] * rng.standard_normal(BLOCK_ROWS), 0, 17)
    whole = rng.random(BLOCK_ROWS) < WHOLE_NUMBER_SHARE
    label = np.where(whole, np.rint(label), label)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    bases = inserts[np.arange(width) < lengths[:, None]]
    texts = pa.StringArray.from_buffers(BLOCK_ROWS, pa.py_buffer(offsets), pa.py_buffer(bases))[:rows]
    promoters = pc.binary_join_element_wise(LEFT_ADAPTER.decode(), texts, RIGHT_ADAPTER.decode(), "")
    return promoters, label[:rows], truth[:rows]


@dataclass
class GenerateResult:
    """A generated file. ceiling: Pearson correlation of noise-free expression and labels, the best expected score."""

    path: str
    rows: int
    seed: int
    ceiling: float


def generate(
    out: Path,
    rows: int,
    seed: int = 0,
    progress: Callable[[int], None] = lambda _: None,
    kind: Kind = "random",
) -> GenerateResult:
    """Write `rows` promoters to a .tsv, .txt (or .gz of these) or .parquet file.

    kind: of the inserts; progress: called with the rows of each block. Raises UserError for another ending of the
    name, for fewer than one row, and if the file cannot be written.
    """
    if rows < 1:
        raise UserError(f"--rows {rows}: expected 1 or more")
    if not out.name.endswith((".tsv", ".txt", ".tsv.gz", ".txt.gz", ".parquet")):
        raise UserError(f"{out}: expected a name ending in .tsv, .txt, .tsv.gz, .txt.gz or .parquet")
    # The correlation of truth and label is computed from sums, so only one block is in memory.
    moments = np.zeros(5)
    with new_file(out) as temporary, _open_writer(temporary) as writer:
        for number, start in enumerate(range(0, rows, BLOCK_ROWS)):
            promoters, y, x = generate_block(min(BLOCK_ROWS, rows - start), seed, number, kind)
            writer.write_table(pa.table([promoters, pa.array(y)], schema=SCHEMA))
            moments += [x.sum(), y.sum(), (x * x).sum(), (y * y).sum(), (x * y).sum()]
            progress(len(x))
    sx, sy, sxx, syy, sxy = moments
    variances = (rows * sxx - sx * sx) * (rows * syy - sy * sy)
    ceiling = float((rows * sxy - sx * sy) / np.sqrt(variances)) if variances > 0 else 0.0
    return GenerateResult(str(out), rows, seed, round(ceiling, 4))


@contextmanager
def _open_writer(path: Path) -> Iterator[pa.csv.CSVWriter | pa.parquet.ParquetWriter]:
    options = pa.csv.WriteOptions(include_header=False, delimiter="\t", quoting_style="none")
    with pa.output_stream(path) as sink:  # compresses by the file's name
        if path.suffix == ".parquet":
            writer = pa.parquet.ParquetWriter(sink, SCHEMA, compression="snappy")
        else:
            writer = pa.csv.CSVWriter(sink, SCHEMA, write_options=options)
        with writer:
            yield writer
