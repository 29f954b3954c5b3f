"""Toy challenge in the file formats of the DREAM Challenge."""

import csv
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from model.scoring.dream_files import SUBSET_FILES

ROWS = 60


@dataclass
class Challenge:
    """Row i of the test file is sequences[i]; subsets by name: row numbers, or (changed, original) pairs."""

    folder: Path
    sequences: list[str] = field(default_factory=list)
    labels: np.ndarray = field(default_factory=lambda: np.empty(0))
    subsets: dict = field(default_factory=dict)
    public: dict = field(default_factory=dict)

    def write(self) -> "Challenge":
        """Write all files: labels.tsv, ground.json, test.txt, subsets/, public/."""
        lines = zip(self.sequences, self.labels.tolist(), strict=True)
        (self.folder / "labels.tsv").write_text("".join(f"{s}\t{y!r}\n" for s, y in lines))
        (self.folder / "test.txt").write_text("".join(f"{s}\tnan\n" for s in self.sequences))
        public_rows = sorted({int(row) for rows in self.public.values() for row in np.ravel(rows)})
        (self.folder / "ground.json").write_text(json.dumps({str(row): float(self.labels[row]) for row in public_rows}))
        for name in ("subsets", "public"):
            (self.folder / name).mkdir(exist_ok=True)
        for name, rows in self.subsets.items():
            write_csv(self.folder / "subsets" / SUBSET_FILES[name][0], rows, self.sequences)
        for name, rows in self.public.items():
            keys = [",".join(map(str, np.atleast_1d(row))) for row in rows]
            (self.folder / "public" / SUBSET_FILES[name][1]).write_text(json.dumps(dict.fromkeys(keys, 0.0)))
        return self

    def predictions(self, values, order=None) -> Path:
        """Write `sequence<TAB>prediction` lines, in the order of the test file or in `order`."""
        order = range(len(values)) if order is None else order
        path = self.folder / "predictions.tsv"
        path.write_text("".join(f"{self.sequences[row]}\t{float(values[row])!r}\n" for row in order))
        return path


def write_csv(path, rows, sequences):
    """Write a subset file as in the challenge, with a first column without a name."""
    sides = ("alt_", "ref_") if np.ndim(rows[0]) else ("",)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        names = (f"{side}{name}" for name in ("tag", "sequence", "pos", "exp") for side in sides)
        writer.writerow(["", *names])
        for number, row in enumerate(rows):
            places = np.atleast_1d(row)
            tags, texts = [f"tag{place}" for place in places], [sequences[place] for place in places]
            writer.writerow([number, *tags, *texts, *places, *[""] * len(places)])


def make_challenge(folder: Path) -> Challenge:
    """Make 60 rows: every tenth is public, and some pairs; some rows and pairs are duplicates."""
    draws = np.random.default_rng(7)
    sequences = ["".join(draws.choice(list("ACGT"), size=20)) for _ in range(ROWS)]
    rows = {
        "high": range(0, 25),
        "low": range(20, 40),
        "yeast": [*range(5, 30), 6, 7, 6],
        "random": range(30, 60),
        "challenging": range(0, 60, 3),
    }
    pairs = {
        "SNVs": [(i, i + 1) for i in range(0, 40)],
        "motif_perturbation": [(i, 0) for i in range(1, 30)] + [(3, 0), (4, 0)],
        "motif_tiling": [(i, 50) for i in range(20, 45)],
    }
    public = {name: [row for row in dict.fromkeys(chosen) if row % 10 == 3] for name, chosen in rows.items()}
    public |= {name: [pair for pair in dict.fromkeys(chosen) if pair[0] % 9 == 2] for name, chosen in pairs.items()}
    subsets = {name: list(chosen) for name, chosen in {**rows, **pairs}.items()}
    return Challenge(folder, sequences, draws.normal(size=ROWS), subsets, public).write()
