"""Prediction of the expression of promoters in memory.

from promoter_bert import Predictor
Predictor("runs/demo").predict(["TGCATTTTTTTCACATC...GGTTACGGCTGTT"])
"""

import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from transformers import PreTrainedModel

from model.artifacts.model_directory import find_model_folder, model_labels
from model.bert.build import load_regression_model
from model.bert.device_batch import fit_width, to_device
from model.bert.frames import choose_width
from model.bert.objectives import average_over_frames
from model.prediction.validate import validate
from pipeline.dataset.input.repairs import suggest_repairs, with_repairs
from pipeline.tokens.kmers import encode_promoters
from pipeline.tokens.padding import pad_tokens
from pipeline.tokens.reverse_complement import reverse_complement

BATCH = {"cpu": 64, "cuda": 4096}
"""Promoters per forward pass, by the type of device."""

Values = npt.NDArray[np.float32]
"""Predictions on the scale of the training labels: float32 (rows,), or (rows, labels) for several labels."""
PendingValues = Callable[[], Values]
"""Predictions that are being computed: the call waits for them and returns them."""


class Predictor:
    """Fine-tuned model with the assay that it was trained for.

    folder: model folder or run directory. both_strands: predict the mean over a promoter and its reverse complement,
    flanks included; for models fine-tuned on both strands. device: None for this process's GPU, or the CPU if it has
    none. overrides: additional repairs of sequences, such as assay.lower_case=upper.

    Attribute `labels` has the names of the labels, in the order of the columns of the predictions.

    On a GPU, weights and activations are fp16 except in the output layer. Raises UserError for an invalid model folder
    and for overrides that are no repairs.
    """

    def __init__(
        self,
        folder: Path | str,
        both_strands: bool = False,
        device: torch.device | None = None,
        overrides: Sequence[str] = (),
    ) -> None:
        self.model = load_regression_model(find_model_folder(Path(folder)))
        facts = self.model.config.promoter_bert
        self.k = int(facts["k"])
        self.labels = model_labels(facts)
        self.token_mode = str(facts.get("tokens", "frames"))
        self.assay = with_repairs(facts["assay"], overrides)
        self.both_strands = both_strands
        self.device = default_device() if device is None else device
        self.batch = BATCH[self.device.type]
        self.model.to(self.device).eval()
        if self.device.type == "cuda":
            to_half(self.model)

    def predict(self, sequences: list[str]) -> Values:
        """Predict promoters, adapters included: float32, on the scale of the training labels.

        The shape is (rows,) for one label, and (rows, labels) for several. Invalid sequences return NaN, with one
        warning that counts the reasons; `problems` returns the reason of each.
        """
        validated = validate(sequences, self.assay)
        problem = validated["problem"]
        valid = problem.is_null()
        values = np.full((len(validated), *self._columns), np.nan, np.float32)
        values[valid.to_numpy()] = self.predict_valid(validated["repaired"].filter(valid))
        if problem.null_count < len(problem):
            examples = _by_problem(problem.to_pylist(), sequences)
            counts = {reason: len(rows) for reason, rows in examples.items()}
            reasons = ", ".join(f"{count:,}: {reason}" for reason, count in counts.items())
            hint = suggest_repairs(examples, self.assay)
            warnings.warn(
                f"no prediction (nan) for {reasons}{f'; {hint}' if hint else ''}. Predictor.problems(sequences) "
                "returns the reason of each",
                stacklevel=2,
            )
        return values

    def problems(self, sequences: list[str]) -> list[str | None]:
        """Return one text per sequence: why it cannot be predicted, or None for a valid promoter."""
        problems: list[str | None] = validate(sequences, self.assay)["problem"].to_pylist()
        return problems

    def predict_valid(self, sequences: pa.Array | pa.ChunkedArray) -> Values:
        """Predict a string column (rows,) of valid, repaired promoters: float32 (rows,) or (rows, labels)."""
        return self.begin(sequences)()

    def begin(self, sequences: pa.Array | pa.ChunkedArray) -> PendingValues:
        """Begin `predict_valid` without waiting for a GPU, so that the next sequences can be prepared meanwhile."""
        if not len(sequences):
            return torch.empty((0, *self._columns)).numpy
        tokens = encode_promoters(sequences, self.assay, self.k)
        batches = []
        with torch.inference_mode():
            for start in range(0, len(tokens), self.batch):
                rows = np.arange(start, min(start + self.batch, len(tokens)))
                lengths = np.diff(tokens.offsets)[rows]
                ids = pad_tokens(tokens, rows, lengths)
                strands = [ids, reverse_complement(ids, lengths, self.k)] if self.both_strands else [ids]
                batches.append(torch.stack([self._forward(strand, lengths) for strand in strands]).mean(0))
            return _to_host(torch.cat(batches))

    @property
    def _columns(self) -> tuple[int, ...]:
        """Shape of the predictions of one promoter: () for one label, (labels,) for several."""
        return (len(self.labels),) if len(self.labels) > 1 else ()

    def _forward(self, ids: npt.NDArray[np.unsignedinteger], lengths: npt.NDArray[np.int64]) -> torch.Tensor:
        """Predict one strand: float32 (rows,) or (rows, labels).

        ids: k-mer ids (rows, bases); lengths: bases of each row (rows,).
        """
        width = choose_width(int(lengths.max()), self.token_mode, self.k, self.device)
        tokens = to_device(fit_width(ids, width), self.device)
        return average_over_frames(self.model, tokens, to_device(lengths, self.device), self.k, self.token_mode)


def _by_problem(problems: list[str | None], sequences: list[str]) -> dict[str, list[str]]:
    """Group the invalid sequences by reason, the most frequent first."""
    groups = defaultdict[str, list[str]](list)
    for problem, sequence in zip(problems, sequences, strict=True):
        if problem is not None:
            groups[problem].append(sequence)
    return dict(sorted(groups.items(), key=lambda item: -len(item[1])))


def _to_host(values: torch.Tensor) -> PendingValues:
    """Begin to copy predictions to the host; reading them does not wait for work that begins later."""
    if not values.is_cuda:
        return values.numpy
    copy = torch.empty(values.shape, dtype=values.dtype, pin_memory=True).copy_(values, non_blocking=True)
    copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
    copied.record()

    def read() -> Values:
        copied.synchronize()
        return copy.numpy()

    return read


def to_half(model: PreTrainedModel) -> None:
    """Cast the weights to fp16 except the output layer: fp16 values between 8 and 16 are 0.008 apart."""
    for name, part in model.named_children():
        if name != "classifier":
            part.half()


def default_device() -> torch.device:
    """Return this process's GPU, or the CPU if there is none."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
