"""Expression of promoters from a trained model: a file in, a file out, or from Python:

from model.predict import Predictor
predictor = Predictor("runs/demo/model")
predictor.predict(["TGCATTTTTTTCACATC...GGTTACGGCTGTT"])
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from model.tasks import mean_over_frames
from pipeline.config import Assay
from pipeline.database import explain
from pipeline.dataset import define_input, input_files
from pipeline.encode import encode_promoters
from pipeline.errors import UserError
from pipeline.stream import padded_tokens

BATCH = 512
"""Promoters through the model at once."""
READ_ROWS = 4096
"""Rows read at once; what is held in memory does not grow with the file."""


@dataclass(frozen=True)
class Predicted:
    """What `predict_file` did. problems: rows that got `nan`, by reason."""

    output: str
    rows: int
    problems: dict[str, int]
    seconds: float


class Predictor:
    """A regression model with what it needs to know of its assay."""

    def __init__(self, folder: Path | str) -> None:
        from model.bert import load_regression_model

        self.model = load_regression_model(Path(folder))
        facts = self.model.config.promoter_bert
        self.k = int(facts["k"])
        self.assay = Assay(**facts["assay"])
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model.to(self.device).eval()

    def predict(self, sequences: list[str] | pa.Array | pa.ChunkedArray) -> npt.NDArray[np.float32]:
        """Expression of promoters, adapters included, on the scale of the training labels: (rows,)."""
        column = pa.array(sequences) if isinstance(sequences, list) else sequences
        if not len(column):
            return np.empty(0, np.float32)
        tokens = encode_promoters(column, self.assay, self.k)
        out = []
        with torch.inference_mode():
            for start in range(0, len(tokens), BATCH):
                rows = np.arange(start, min(start + BATCH, len(tokens)))
                lengths = np.diff(tokens.offsets)[rows]
                ids = torch.from_numpy(padded_tokens(tokens, rows, lengths).astype(np.int32)).to(self.device)
                mean = mean_over_frames(self.model, ids, torch.from_numpy(lengths).to(self.device), self.k)
                out.append(mean.cpu().numpy())
        return np.concatenate(out)


def predict_file(
    folder: Path, names: list[str], output: Path, progress: Callable[[int], None] = lambda _rows: None
) -> Predicted:
    """Predict every row of the input files, in their order, into `sequence<TAB>prediction` lines.

    A row that cannot be predicted keeps its line, with `nan`. progress is told the rows of each part.
    The output appears whole or not at all.
    """
    began = time.monotonic()
    files = input_files(names)
    predictor = Predictor(folder)
    problems: dict[str, int] = {}
    total = 0
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = output.with_name(f".{output.name}.{os.getpid()}.partial")
    connection = duckdb.connect()
    try:
        define_input(connection, predictor.assay, files, labelled=False)
        reader = connection.sql(
            "select coalesce(sequence, '') as sequence, sequence_problem(sequence) as problem from input"
        ).to_arrow_reader(READ_ROWS)
        with temporary.open("w", encoding="utf-8") as file:
            for part in reader:
                usable = part["problem"].is_null()
                values = np.full(len(part), np.nan)
                values[usable.to_numpy(zero_copy_only=False)] = predictor.predict(part["sequence"].filter(usable))
                lines = zip(part["sequence"].to_pylist(), values, strict=True)
                file.writelines(f"{sequence}\t{value:.6f}\n" for sequence, value in lines)
                for problem in part["problem"].drop_null().to_pylist():
                    problems[problem] = problems.get(problem, 0) + 1
                total += len(part)
                progress(len(part))
        if total == 0:
            raise UserError(f"{', '.join(files)}: no rows")
        temporary.replace(output)
    except duckdb.Error as error:
        raise explain(error) from None
    finally:
        connection.close()
        temporary.unlink(missing_ok=True)
    return Predicted(str(output), total, problems, round(time.monotonic() - began, 3))
