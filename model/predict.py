"""Expression of promoters from a trained model: a file in, a file out, or from Python:

from model.predict import Predictor
predictor = Predictor("runs/demo/model")
predictor.predict(["TGCATTTTTTTCACATC...GGTTACGGCTGTT"])
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from transformers import BertForSequenceClassification

from model.frames import read_width
from model.tasks import mean_over_frames, moved, of_width
from pipeline.atomic import new_file
from pipeline.config import Assay
from pipeline.database import explain, rows_of
from pipeline.encode import encode_promoters
from pipeline.errors import UserError
from pipeline.input_view import define_input, define_rules
from pipeline.inputs import Columns, find_input
from pipeline.padding import padded_tokens

BATCH = {"cpu": 512, "cuda": 4096}
"""Promoters through the model at once."""
READ_ROWS = {"cpu": 4096, "cuda": 16_384}
"""Rows read at once; what is held in memory does not grow with the file."""
TEXT_SUFFIXES = (".tsv", ".txt")


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
        self.view = str(facts.get("tokens", "frames"))
        self.assay = Assay(**facts["assay"])
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model.to(self.device).eval()
        if self.device.type == "cuda":
            halve(self.model)

    def predict(self, sequences: list[str]) -> npt.NDArray[np.float32]:
        """Expression of promoters, adapters included, on the scale of the training labels: (rows,).

        Raises UserError naming the first sequence that is no promoter of the model's assay, and why.
        """
        if isinstance(sequences, str):
            raise UserError("expected a list of promoters, got one string")
        column = pa.array(sequences, pa.string())
        with duckdb.connect() as connection:
            define_rules(connection, self.assay)
            connection.register("given", pa.table({"sequence": column}))
            bad = rows_of(
                connection,
                "select place, sequence, problem from (select row_number() over () - 1 as place, sequence, "
                "sequence_problem(repaired(sequence)) as problem from given) where problem is not null "
                "order by place limit 1",
            )
            repaired = connection.sql("select repaired(sequence) as sequence from given").to_arrow_table()["sequence"]
        if bad:
            place, sequence, problem = bad[0]
            raise UserError(
                f"sequence {place}: {problem}: {(sequence or '')[:200]!r}; expected "
                f"{self.assay.left_adapter}...insert...{self.assay.right_adapter} in letters ACGTN"
            )
        return self.predict_usable(repaired)

    def predict_usable(self, sequences: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.float32]:
        """The same for a string column that has passed the rules of sql/01_rules.sql."""
        if not len(sequences):
            return np.empty(0, np.float32)
        tokens = encode_promoters(sequences, self.assay, self.k)
        size, out = BATCH[self.device.type], []
        with torch.inference_mode():
            for rows in np.split(np.arange(len(tokens)), range(size, len(tokens), size)):
                lengths = np.diff(tokens.offsets)[rows]
                width = read_width(int(lengths.max()), self.view, self.k, self.device)
                ids = moved(of_width(padded_tokens(tokens, rows, lengths), width), self.device)
                out.append(mean_over_frames(self.model, ids, moved(lengths, self.device), self.k, self.view))
        return torch.cat(out).cpu().numpy()  # the first that waits for a GPU


def halve(model: BertForSequenceClassification) -> None:
    """Weights to fp16, but for the output layer: in fp16 expression values of 8 to 16 are 0.008 apart."""
    model.bert.half()


def predict_file(
    folder: Path,
    names: list[str],
    output: str,
    progress: Callable[[int], None] = lambda _rows: None,
    columns: Columns | None = None,
) -> Predicted:
    """Predict every row of the input files, in their order, into `sequence<TAB>prediction` lines.

    A row that cannot be predicted keeps its line, with `nan`. output: a .tsv or .txt file, which appears whole or not
    at all, `-` for standard output, or a device or pipe. progress is told the rows of each part.
    """
    began = time.monotonic()
    given = find_input(names, columns, labelled=False)
    _check_output(output, given.files)
    predictor = Predictor(folder)
    problems: dict[str, int] = {}
    total = 0
    with duckdb.connect() as connection, _sink(output) as file:
        try:
            define_input(connection, predictor.assay, given)
            reader = connection.sql(
                "select coalesce(sequence, '') as sequence, repaired(sequence) as repaired, "
                "sequence_problem(repaired(sequence)) as problem from input"
            ).to_arrow_reader(READ_ROWS[predictor.device.type])
            for part in reader:
                usable = part["problem"].is_null()
                values = np.full(len(part), np.nan)
                kept = usable.to_numpy(zero_copy_only=False)
                values[kept] = predictor.predict_usable(part["repaired"].filter(usable))
                lines = zip(part["sequence"].to_pylist(), values, strict=True)
                file.writelines(f"{sequence}\t{value:.9g}\n" for sequence, value in lines)
                for problem in part["problem"].drop_null().to_pylist():
                    problems[problem] = problems.get(problem, 0) + 1
                total += len(part)
                progress(len(part))
        except duckdb.Error as error:
            raise explain(error) from None
        if total == sum(problems.values()):
            why = ", ".join(f"{count:,}: {problem}" for problem, count in problems.items()) or "no rows"
            raise UserError(f"{', '.join(names)}: nothing to predict ({why})")
    return Predicted(output, total, problems, round(time.monotonic() - began, 3))


def _check_output(output: str, files: list[str]) -> None:
    """Before any work is done."""
    path = Path(output)
    if path.is_dir():
        raise UserError(f"{output} is a folder; name a file in it")
    if is_stream(output):
        return
    if path.is_dir():
        raise UserError(f"{output} is a folder; name a file in it")
    if path.suffix not in TEXT_SUFFIXES:
        raise UserError(f"{output}: predictions are lines of text: expected a name ending in .tsv or .txt, or -")
    if path.exists() and any(path.samefile(file) for file in files):
        raise UserError(f"{output}: this is an input file, too; write the predictions to another one")


def is_stream(output: str) -> bool:
    """Standard output, or a device or pipe such as /dev/stdout: written to as it is."""
    return output == "-" or (Path(output).exists() and not Path(output).is_file())


@contextmanager
def _sink(output: str) -> Iterator[TextIO]:
    if output == "-":
        yield sys.stdout
        sys.stdout.flush()
    elif is_stream(output):
        with Path(output).open("w", encoding="utf-8") as file:
            yield file
    else:
        with new_file(Path(output)) as temporary, temporary.open("w", encoding="utf-8") as file:
            yield file
