"""Expression of promoters from a trained model:

from model.prediction.predictor import Predictor
predictor = Predictor("runs/demo")
predictor.predict(["TGCATTTTTTTCACATC...GGTTACGGCTGTT"])
"""

import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from transformers import BertForSequenceClassification

from model.artifacts.model_directory import model_of
from model.bert.device_batch import fit_width, to_device
from model.bert.frames import read_width
from model.bert.objectives import mean_over_frames
from model.prediction.validate import checked, repaired
from pipeline.dataset.repairs import remedy, with_repairs
from pipeline.tokens.encode import encode_promoters
from pipeline.tokens.padding import padded_tokens
from pipeline.tokens.reverse_complement import reverse_complement

BATCH = {"cpu": 64, "cuda": 4096}
"""Promoters through the model at once, by the kind of device."""


class Pending:
    """Predictions that a GPU may still be at: (rows,). What is given to it later is not waited for."""

    def __init__(self, values: torch.Tensor) -> None:
        self._values, self._done = values, None
        if values.is_cuda:
            self._values = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            self._values.copy_(values, non_blocking=True)
            self._done = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._done.record()

    def read(self) -> npt.NDArray[np.float32]:
        """The values, once they are there."""
        if self._done is not None:
            self._done.synchronize()
        return self._values.numpy()


class Predictor:
    """A regression model with what it needs to know of its assay. folder: the model's, or its run's.

    both_strands: a promoter's expression is the mean of what the model says of the promoter and of its reverse
    complement, flanks included. That is for models that were fine-tuned on both.
    on: the device, in place of this process's own.
    overrides: repairs of sequences beside those that the model was trained with, such as assay.lower_case=upper.
    """

    def __init__(
        self,
        folder: Path | str,
        both_strands: bool = False,
        on: torch.device | None = None,
        overrides: Sequence[str] = (),
    ) -> None:
        from model.bert.build import load_regression_model

        self.model = load_regression_model(model_of(Path(folder)))
        facts = self.model.config.promoter_bert
        self.k = int(facts["k"])
        self.view = str(facts.get("tokens", "frames"))
        self.assay = with_repairs(facts["assay"], overrides)
        self.both_strands = both_strands
        self.device = device() if on is None else on
        self.batch = BATCH[self.device.type]
        self.model.to(self.device).eval()
        if self.device.type == "cuda":
            halve(self.model)

    def predict(self, sequences: list[str]) -> npt.NDArray[np.float32]:
        """Expression of promoters, adapters included, on the scale of the training labels: (rows,).

        NaN, and a warning with the reasons, for what is no promoter of the model's assay; `problems` tells each.
        """
        found = checked(sequences, self.assay)
        problem = found["problem"]
        usable = problem.is_null()
        prediction = np.full(len(found), np.nan, np.float32)
        prediction[usable.to_numpy()] = self.predict_usable(found["repaired"].filter(usable))
        if problem.null_count < len(problem):
            counts = Counter(problem.drop_null().to_pylist())
            why, mend = ", ".join(f"{count:,}: {each}" for each, count in counts.items()), remedy(counts, self.assay)
            warnings.warn(
                f"no prediction (nan) for {why}{f'; {mend}' if mend else ''}. Predictor.problems(sequences) says which",
                stacklevel=2,
            )
        return prediction

    def problems(self, sequences: list[str]) -> list[str | None]:
        """Why each sequence has no prediction; None for a promoter of the model's assay."""
        found: list[str | None] = checked(sequences, self.assay)["problem"].to_pylist()
        return found

    def repaired(self, sequences: list[str]) -> pa.ChunkedArray:
        """Promoters as the model is given them: repaired where its assay says so.

        Raises UserError naming the first sequence that is no promoter of the assay, and why.
        """
        return repaired(sequences, self.assay)

    def predict_usable(self, sequences: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.float32]:
        """The same for a string column that has passed the rules of sql/01_rules.sql."""
        return self.begin(sequences).read()

    def begin(self, sequences: pa.Array | pa.ChunkedArray) -> Pending:
        """The same without waiting for a GPU: more can be prepared, or begun, before the values are read."""
        if not len(sequences):
            return Pending(torch.empty(0))
        tokens = encode_promoters(sequences, self.assay, self.k)
        out = []
        with torch.inference_mode():
            for start in range(0, len(tokens), self.batch):
                rows = np.arange(start, min(start + self.batch, len(tokens)))
                lengths = np.diff(tokens.offsets)[rows]
                ids = padded_tokens(tokens, rows, lengths)
                strands = [ids, reverse_complement(ids, lengths, self.k)] if self.both_strands else [ids]
                out.append(torch.stack([self._read(strand, lengths) for strand in strands]).mean(0))
            return Pending(torch.cat(out))

    def _read(self, ids: npt.NDArray[np.unsignedinteger], lengths: npt.NDArray[np.int64]) -> torch.Tensor:
        """One strand through the model: (rows,)."""
        width = read_width(int(lengths.max()), self.view, self.k, self.device)
        there = to_device(fit_width(ids, width), self.device)
        return mean_over_frames(self.model, there, to_device(lengths, self.device), self.k, self.view)


def halve(model: BertForSequenceClassification) -> None:
    """Weights to fp16, but for the output layer: in fp16 expression values of 8 to 16 are 0.008 apart."""
    model.bert.half()


def device() -> torch.device:
    """Where a model predicts: this process's GPU, if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
