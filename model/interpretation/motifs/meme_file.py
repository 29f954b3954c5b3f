"""Read motifs from a file in MEME's minimal motif format (https://meme-suite.org/meme/doc/meme-format.html)."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from model.interpretation.saturation_mutagenesis import BASES
from pipeline.errors import UserError
from pipeline.runtime.text import shorten

UNIFORM = (0.25, 0.25, 0.25, 0.25)
SITES = 20.0
"""Number of sites of a motif that does not record it, as in the MEME Suite."""
SUM_TOLERANCE = 0.05
"""Largest deviation of the probabilities of one position, or of the background, from a sum of 1."""
ALPHABETS = ("ACGT", "ACGU")
NEXT_SECTIONS = ("MOTIF", "URL", "log-odds", "letter-probability")
_MATRIX_VALUE = re.compile(r"(alength|w|nsites)\s*=\s*(\S+)")


@dataclass(frozen=True)
class Motif:
    """Probabilities of the bases ACGT at each position of a binding site, float64 (width, 4); rows sum to 1.

    identifier, name: the two words of the MOTIF line; name is the identifier if there is one word. sites: number of
    sites from which the probabilities were estimated.
    """

    identifier: str
    name: str
    probabilities: npt.NDArray[np.float64]
    sites: float = SITES

    @property
    def title(self) -> str:
        """Return the identifier, then the name if it differs."""
        return self.identifier if self.name == self.identifier else f"{self.identifier} {self.name}"


@dataclass(frozen=True)
class MotifFile:
    """Motifs of a file. background: frequencies of ACGT in any sequence, float64 (4,)."""

    motifs: list[Motif]
    background: npt.NDArray[np.float64]


def read_motifs(path: Path) -> MotifFile:
    """Read the motifs and the background of a MEME file; the background is uniform if the file has none.

    Raises UserError for a file that is unreadable, of another format or alphabet, or without motifs.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise UserError(f"{path}: cannot read the motifs: {reason}; expected a file in MEME's motif format") from None
    return _MemeReader(path, text).read()


class _MemeReader:
    """Reader of the lines of one file. line: number of the last line that was read, from 1."""

    def __init__(self, path: Path, text: str) -> None:
        self._path = path
        self._lines = text.splitlines()
        self._line = 0

    def read(self) -> MotifFile:
        if not any(line.startswith("MEME version") for line in self._lines):
            raise UserError(
                f"{self._path}: no line 'MEME version'; expected a file in MEME's motif format, such as a download "
                "from JASPAR as MEME; fix: convert it with a tool of the MEME Suite, such as jaspar2meme"
            )
        motifs, background = list[Motif](), np.array(UNIFORM)
        names: tuple[str, str] | None = None
        for line in self._remaining():
            words = line.split()
            if line.startswith("ALPHABET"):
                self._check_alphabet(line)
            elif line.startswith("Background letter frequencies"):
                background = self._read_background()
            elif words[:1] == ["MOTIF"]:
                names = self._name(words)
            elif line.startswith("letter-probability matrix"):
                if names is None:
                    raise self._error("a matrix before the first MOTIF line")
                motifs.append(self._read_motif(names, line))
        if not motifs:
            raise UserError(
                f"{self._path}: no motifs; expected lines 'MOTIF name' and 'letter-probability matrix: ...'"
            )
        return MotifFile(motifs, background)

    def _remaining(self) -> Iterator[str]:
        """Yield the lines that follow, without white space around them."""
        while self._line < len(self._lines):
            self._line += 1
            yield self._lines[self._line - 1].strip()

    def _error(self, problem: str) -> UserError:
        return UserError(f"{self._path}: line {self._line}: {problem}; fix: restore the file, in MEME's motif format")

    def _check_alphabet(self, line: str) -> None:
        letters = line.removeprefix("ALPHABET").strip(" =")
        if letters not in ALPHABETS:
            raise UserError(
                f"{self._path}: line {self._line}: alphabet {shorten(letters, 40)!r}; expected "
                "ALPHABET= ACGT, motifs of DNA"
            )

    def _name(self, words: list[str]) -> tuple[str, str]:
        if len(words) < 2:
            raise self._error("a motif without a name")
        return words[1], words[2] if len(words) > 2 else words[1]

    def _read_background(self) -> npt.NDArray[np.float64]:
        """Read `A 0.3 C 0.2 G 0.2 T 0.3`, on one line or on several."""
        words: list[str] = []
        for line in self._remaining():
            words += line.split()
            if len(words) >= 2 * len(BASES):
                break
        if "".join(words[::2]).replace("U", "T") != BASES:
            raise self._error(f"expected the frequencies of A, C, G and T, got {' '.join(words)[:60]!r}")
        return self._probabilities(words[1::2])

    def _read_motif(self, names: tuple[str, str], line: str) -> Motif:
        """Read the rows of the matrix. line: the one before them, with its width and its number of sites."""
        values = dict(_MATRIX_VALUE.findall(line))
        if values.get("alength", "4") != "4":
            raise self._error(f"{values['alength']} letters per position; expected 4, motifs of DNA")
        rows: list[npt.NDArray[np.float64]] = []
        width = values.get("w", "")
        while self._line < len(self._lines) and str(len(rows)) != width:
            row = self._lines[self._line].split()
            if (not row and rows) or row[:1] == ["URL"] or self._lines[self._line].startswith(NEXT_SECTIONS):
                break
            self._line += 1
            if row:
                rows.append(self._probabilities(row))
        if not rows or width not in ("", str(len(rows))):
            raise self._error(
                f"motif {names[0]}: expected {width or '1 or more'} rows of probabilities, got {len(rows)}"
            )
        return Motif(*names, np.stack(rows), self._sites(values.get("nsites", "")))

    def _sites(self, text: str) -> float:
        try:
            sites = float(text)
        except ValueError:
            return SITES
        return sites if 0 < sites < math.inf else SITES

    def _probabilities(self, words: list[str]) -> npt.NDArray[np.float64]:
        """Return four probabilities, scaled to a sum of 1."""
        try:
            values = np.array(words, np.float64)
        except ValueError:
            values = np.empty(0)
        if len(values) != len(BASES) or not (values >= 0).all() or not abs(values.sum() - 1) <= SUM_TOLERANCE:
            raise self._error(f"expected four probabilities with a sum of 1, got {' '.join(words)[:60]!r}")
        return np.asarray(values / values.sum())
