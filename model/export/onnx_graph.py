"""Regression model that reads bases: adapters, flanks, k-mers and reading frames are part of its graph.

The model can be traced: all operations are on tensors, no Python branch depends on their values, and sizes come from
shapes, because len() is a constant for the tracer.
"""

import string

import torch
from torch import nn
from torch.nn import functional as F
from transformers import BertForSequenceClassification

from model.bert.objectives import average_over_frames
from pipeline.config.schema import Assay
from pipeline.tokens.kmers import ALPHABET, SPECIALS

NO_BASE = len(ALPHABET)
"""Code of a byte that is no base."""
IUPAC = "RYSWKMBDHV"
"""IUPAC codes of two or three bases."""


class SequenceRegressor(nn.Module):
    """ASCII bases of promoters -> expression: float32 (promoters,), on the scale of the training labels.

    For several labels: (promoters, labels).

    k, token_mode: as in fine-tuning (see frames.TOKEN_MODES). Rows that are invalid by the rules of sql/01_rules.sql
    return NaN. The assay's repairs are part of the graph, except for white space and inexact adapters,
    which are invalid here.
    """

    def __init__(self, model: BertForSequenceClassification, assay: Assay, k: int, token_mode: str) -> None:
        super().__init__()
        self.model, self.assay, self.k, self.token_mode = model, assay, k, token_mode
        self.code_of_byte = nn.Buffer(_code_of_bytes(assay))
        self.left_adapter, self.right_adapter = _codes(assay.left_adapter), _codes(assay.right_adapter)
        self.left_flank = _codes(assay.left_flank)
        self.right_padding = _codes(assay.right_flank + "N" * k)  # the last k-mers extend past the end into Ns

    def forward(self, bases: torch.Tensor) -> torch.Tensor:
        """Predict expression (promoters,) or (promoters, labels).

        bases: uint8 (promoters, columns), ASCII with adapters, 0 past each end.
        """
        byte = bases.long()  # older versions of ONNX Runtime cannot compare uint8
        codes = self.code_of_byte[byte]
        starts, inserts, valid = self._find_inserts(codes, (byte != 0).sum(1))
        inserts = torch.where(valid, inserts, 0)
        ids = self._encode(codes, starts, inserts)
        lengths = inserts + 2 * self.assay.flank
        expression = average_over_frames(self.model, ids, lengths, self.k, self.token_mode)
        return torch.where(valid if expression.ndim == 1 else valid[:, None], expression, float("nan"))

    def _find_inserts(self, codes: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Find the start and length of each insert, and whether the row is valid: (promoters,) each."""
        left, right = len(self.left_adapter), len(self.right_adapter)
        # Pad with NO_BASE, so that rows shorter than an adapter can be compared with it.
        padded = F.pad(codes, (0, left + right), value=NO_BASE)
        at_end = (lengths[:, None] - right).clamp(min=0) + torch.arange(right)
        begins = (padded[:, :left] == self.left_adapter).all(1)
        ends = (padded.gather(1, at_end) == self.right_adapter).all(1)
        bare = ~begins & ~ends if self.assay.missing_adapters == "add" else torch.zeros_like(begins)
        inserts = torch.where(bare, lengths, lengths - left - right)
        invalid = (codes == NO_BASE) & (torch.arange(codes.shape[1]) < lengths[:, None])
        fits = (inserts >= self.assay.min_insert) & (inserts <= self.assay.max_insert) & (lengths > 0)
        return torch.where(bare, 0, left), inserts, (bare | (begins & ends)) & fits & ~invalid.any(1)

    def _encode(self, codes: torch.Tensor, starts: torch.Tensor, inserts: torch.Tensor) -> torch.Tensor:
        """Compute the k-mer ids at all bases, flanks included: int64 (promoters, bases of the longest)."""
        longest = inserts.max().item()  # of the valid rows; invalid ones may exceed the positions of the model
        # These bounds tell the tracer that the model has a position for each token.
        torch._check(longest >= 0)  # type: ignore[no-untyped-call]
        torch._check(longest <= self.assay.max_insert)  # type: ignore[no-untyped-call]
        flank, columns = self.assay.flank, codes.shape[1]
        width = longest + 2 * flank
        left, right = (part.expand(codes.shape[0], -1) for part in (self.left_flank, self.right_padding))
        extended = torch.cat([left, codes, right], 1)
        place = torch.arange(width + self.k - 1) - flank  # position in the insert
        past_end = (place - inserts[:, None]).clamp(max=len(self.right_padding) - 1)
        column = torch.where(past_end < 0, starts[:, None] + place, columns + past_end)
        bases = extended.gather(1, flank + torch.where(place < 0, place, column))
        ids = torch.zeros_like(bases[:, :width])
        for i in range(self.k):  # Horner's rule
            ids = ids * len(ALPHABET) + bases[:, i : i + width]
        return ids + len(SPECIALS)


def _codes(bases: str) -> nn.Buffer:
    return nn.Buffer(torch.tensor([ALPHABET.index(base) for base in bases], dtype=torch.long))


def _code_of_bytes(assay: Assay) -> torch.Tensor:
    """Return the code of each byte after the assay's repairs: int64 (256,)."""
    code = torch.full((256,), NO_BASE)
    for character in string.ascii_letters:
        base = character.upper() if assay.lower_case == "upper" else character
        if assay.uracil == "thymine":
            base = {"U": "T", "u": "t"}.get(base, base)
        if assay.iupac == "n" and base in IUPAC:
            base = "N"
        if base in ALPHABET:
            code[ord(character)] = ALPHABET.index(base)
    return code
