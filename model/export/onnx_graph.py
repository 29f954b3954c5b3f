"""A regression model that takes letters: adapters, flanks, k-mers and reading frames are part of its graph.

For programs that run an exported graph and know nothing of k-mers (see onnx_export.py). So that it can be traced, all
is done in tensors, no step in Python depends on their values, and sizes are asked of shapes, as len() would give the
tracer a number.
"""

import string

import torch
from torch import nn
from torch.nn import functional as F
from transformers import BertForSequenceClassification

from model.bert.objectives import mean_over_frames
from pipeline.config.schema import Assay
from pipeline.tokens.kmers import ALPHABET, SPECIALS

NO_BASE = len(ALPHABET)
"""Code of a byte that is no letter of a promoter."""
IUPAC = "RYSWKMBDHV"


class ReadsLetters(nn.Module):
    """Letters of promoters -> expression, (promoters,) float32 on the scale of the model's labels.

    k and view: as the model was fine-tuned (frames.TOKEN_MODES). A row that the assay's rules (sql/01_rules.sql) take
    for no promoter gives NaN. Their repairs are done here, but for white space, which is no base in any case.
    """

    code_of_byte: torch.Tensor
    left_adapter: torch.Tensor
    right_adapter: torch.Tensor
    left_flank: torch.Tensor
    behind: torch.Tensor

    def __init__(self, model: BertForSequenceClassification, assay: Assay, k: int, view: str) -> None:
        super().__init__()
        self.model, self.assay, self.k, self.view = model, assay, k, view
        self.register_buffer("code_of_byte", _code_of_bytes(assay))
        for name in ("left_adapter", "right_adapter", "left_flank"):
            self.register_buffer(name, _codes(getattr(assay, name)))
        self.register_buffer("behind", _codes(assay.right_flank + "N" * k))  # past the end of a sequence stand Ns

    def forward(self, bases: torch.Tensor) -> torch.Tensor:
        """bases: (promoters, columns) uint8, a promoter's ASCII letters with its adapters, then zeros."""
        byte = bases.long()  # older ONNX Runtimes compare no uint8
        codes = self.code_of_byte[byte]
        starts, inserts, usable = self._inserts(codes, (byte != 0).sum(1))
        inserts = torch.where(usable, inserts, 0)
        ids = self._ids(codes, starts, inserts)
        lengths = inserts + 2 * self.assay.flank
        expression = mean_over_frames(self.model, ids, lengths, self.k, self.view)
        return torch.where(usable, expression, float("nan"))

    def _inserts(self, codes: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Where each insert starts, its bases, and whether the row is a promoter: (promoters,) each."""
        left, right = len(self.left_adapter), len(self.right_adapter)
        # Past the end, and in a row that is too short for an adapter, stands what is no base.
        roomy = F.pad(codes, (0, left + right), value=NO_BASE)
        at_end = (lengths[:, None] - right).clamp(min=0) + torch.arange(right)
        begins = (roomy[:, :left] == self.left_adapter).all(1)
        ends = (roomy.gather(1, at_end) == self.right_adapter).all(1)
        bare = ~begins & ~ends if self.assay.missing_adapters == "add" else torch.zeros_like(begins)
        inserts = torch.where(bare, lengths, lengths - left - right)
        wrong = (codes == NO_BASE) & (torch.arange(codes.shape[1]) < lengths[:, None])
        fits = (inserts >= self.assay.min_insert) & (inserts <= self.assay.max_insert) & (lengths > 0)
        return torch.where(bare, 0, left), inserts, (bare | (begins & ends)) & fits & ~wrong.any(1)

    def _ids(self, codes: torch.Tensor, starts: torch.Tensor, inserts: torch.Tensor) -> torch.Tensor:
        """Ids of the k-mers at all bases between and in the flanks: (promoters, bases of the longest)."""
        longest = inserts.max().item()  # of the usable rows: the others could be longer than the model can read
        # The tracer is told what it cannot know, to tell whether the model has a position for each token.
        torch._check(longest >= 0)  # type: ignore[no-untyped-call]
        torch._check(longest <= self.assay.max_insert)  # type: ignore[no-untyped-call]
        flank, columns = self.assay.flank, codes.shape[1]
        width = longest + 2 * flank
        before, behind = (part.expand(codes.shape[0], -1) for part in (self.left_flank, self.behind))
        parts = torch.cat([before, codes, behind], 1)
        place = torch.arange(width + self.k - 1) - flank  # in the insert
        past = (place - inserts[:, None]).clamp(max=len(self.behind) - 1)
        here = torch.where(past < 0, starts[:, None] + place, columns + past)
        extended = parts.gather(1, flank + torch.where(place < 0, place, here))
        ids = torch.zeros_like(extended[:, :width])
        for i in range(self.k):  # Horner's rule
            ids = ids * len(ALPHABET) + extended[:, i : i + width]
        return ids + len(SPECIALS)


def _codes(letters: str) -> torch.Tensor:
    return torch.tensor([ALPHABET.index(letter) for letter in letters], dtype=torch.long)


def _code_of_bytes(assay: Assay) -> torch.Tensor:
    """The code of each byte, repaired as the assay has it: (256,)."""
    code = torch.full((256,), NO_BASE)
    for letter in string.ascii_letters:
        base = letter.upper() if assay.lower_case == "upper" else letter
        if assay.uracil == "thymine":
            base = {"U": "T", "u": "t"}.get(base, base)
        if assay.iupac == "n" and base in IUPAC:
            base = "N"
        if base in ALPHABET:
            code[ord(letter)] = ALPHABET.index(base)
    return code
