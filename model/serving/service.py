"""Predictions and saturation mutagenesis for requests: one at a time, within the limits."""

import shlex
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from model.artifacts.model_directory import (
    ONE_LABEL,
    describe_unfinished_run,
    find_model_folder,
    labels_of,
    read_model_facts,
    read_sequence_name,
)
from model.interpretation.command import table_command
from model.interpretation.page import render_effects_page
from model.interpretation.saturation_mutagenesis import BASES, mutagenesis_by_label
from model.interpretation.sections import PageFacts
from model.prediction.assay_fit import AssayFit
from model.prediction.inputs import Part, find_prediction_input, read_parts
from model.prediction.predictor import Predictor
from model.prediction.validate import validate
from model.serving.limits import Limits, RefusedError, too_many_sequences
from model.serving.upload import stored_upload
from pipeline.dataset.input.cells import is_dna
from pipeline.dataset.input.columns import Columns
from pipeline.dataset.input.repairs import collect_repairs, describe_hint
from pipeline.errors import UserError
from pipeline.runtime.text import shorten


@dataclass(frozen=True)
class Prediction:
    """Predictions of one request.

    table: columns name (of FASTA), sequence (as read), prediction, or prediction_NAME per label, and problem (null for
    a valid row). problems: reason -> rows. warnings: about the model and the sequences. hint: for the rejects. repairs:
    overrides that repair rejects.
    """

    table: pa.Table
    problems: Mapping[str, int]
    warnings: Sequence[str]
    hint: str
    repairs: Sequence[str] = ()


class PredictionService:
    """A loaded model and its queue of requests; the methods may be called by several threads.

    run: run directory or model folder. overrides: repairs of sequences. options: of the command that started it. Raises
    UserError for an invalid model folder and for overrides that are no repairs.
    """

    def __init__(
        self, run: Path, overrides: Sequence[str] = (), limits: Limits | None = None, options: Sequence[str] = ()
    ) -> None:
        self.run, self.limits, self._overrides = run, limits or Limits(), tuple(overrides)
        self._options = tuple(options)
        self._facts = read_model_facts(run)
        self.sequence_name = read_sequence_name(run)
        self._labels = labels_of(self._facts)
        self._predictor = Predictor(run, overrides=overrides)
        self.assay = self._predictor.assay
        self._queue, self._turn = threading.BoundedSemaphore(self.limits.requests), threading.Lock()

    def predict_upload(self, data: bytes, sequence_column: str | None = None) -> Prediction:
        """Predict the rows of a file, whose format is that of its content; the column is detected unless it is named.

        Raises UserError for an unreadable input, and RefusedError beyond the limits.
        """
        with self._in_turn(), stored_upload(data, self.limits) as file:
            source = find_prediction_input([str(file)], Columns(sequence_column), file.suffix == ".fasta")
            parts = self._limited(read_parts(source, self.assay, self._predictor.batch))
            _check_sequences(parts)
            return self._predict(parts)

    def predict_sequences(self, sequences: list[str]) -> Prediction:
        """Predict sequences, adapters included. Raises RefusedError beyond the limits."""
        if len(sequences) > self.limits.sequences:
            raise too_many_sequences(self.limits)
        with self._in_turn():
            table = validate(sequences, self.assay).add_column(0, "sequence", pa.array(sequences, pa.string()))
            size = self._predictor.batch
            return self._predict([Part(first, table.slice(first, size)) for first in range(0, len(table), size)])

    def explain(self, sequence: str) -> str:
        """Render the page of the saturation mutagenesis of a sequence, for all labels of the model.

        Raises UserError for an invalid sequence, and RefusedError beyond the limits.
        """
        if len(sequence) * (len(BASES) - 1) >= self.limits.sequences:
            raise too_many_sequences(self.limits)
        with self._in_turn():
            results = mutagenesis_by_label(self._predictor, sequence)
            if not self._labels:  # one label is not named
                results = {"": results[ONE_LABEL]}
            facts = PageFacts(
                Path(self.run.resolve().name),
                self.sequence_name,
                self._facts.get("insert_lengths"),
                command=table_command(self.run, overrides=self._overrides),
            )
            return render_effects_page(results, facts)

    def restart_command(self, repairs: Sequence[str]) -> str:
        """Format the command that serves this run with further repairs."""
        names = {repair.partition("=")[0] for repair in repairs}
        kept = [override for override in self._overrides if override.partition("=")[0] not in names]
        return shlex.join(["promoter-bert", "serve", str(self.run), *self._options, *kept, *repairs])

    @contextmanager
    def _in_turn(self) -> Iterator[None]:
        """Wait until no other request is predicted. Raises RefusedError if too many wait, or for too long."""
        busy = RefusedError(503, "the server is busy with other requests; fix: try again in a minute")
        if not self._queue.acquire(blocking=False):
            raise busy
        try:
            if not self._turn.acquire(timeout=self.limits.wait_s):
                raise busy
            try:
                yield
            finally:
                self._turn.release()
        finally:
            self._queue.release()

    def _limited(self, parts: Iterator[Part]) -> list[Part]:
        """Read all parts of an input. Raises RefusedError for too many rows."""
        read = []
        for part in parts:
            if part.first + len(part) > self.limits.sequences:
                raise too_many_sequences(self.limits)
            read.append(part)
        return read

    def _predict(self, parts: Sequence[Part]) -> Prediction:
        if not parts:
            raise UserError("the input: no sequences")
        end = time.monotonic() + self.limits.predict_s
        warnings = [text for text in [describe_unfinished_run(find_model_folder(self.run))] if text]
        fit = AssayFit(self._facts, self.assay, warnings.append)
        predicted = []
        for part in parts:
            if time.monotonic() > end:
                raise RefusedError(
                    503, f"the prediction takes longer than {self.limits.predict_s:g} s; fix: fewer sequences"
                )
            fit.add(part.table["sequence"], part.valid_sequences, part.describe_valid)
            predicted.append(part.with_predictions(self._predictor.predict_valid(part.valid_sequences), self._labels))
        fit.finish()
        table = pa.concat_tables(part.table for part in predicted)
        rejects = table.filter(table["problem"].is_valid()).select(["problem", "sequence"]).to_pylist()
        problems = dict(Counter(row["problem"] for row in rejects).most_common())
        examples = {reason: [row["sequence"] for row in rejects if row["problem"] == reason] for reason in problems}
        repairs = collect_repairs(examples, self.assay)
        return Prediction(table, problems, warnings, describe_hint(repairs, examples, self.assay), repairs)


def _check_sequences(parts: Sequence[Part]) -> None:
    """Raise UserError if no row of an upload holds DNA, as in a web page or a report."""
    rows = [row for part in parts for row in part.table["sequence"].to_pylist()]
    if rows and not any(map(is_dna, rows)):
        raise UserError(
            f"the input: no row is a sequence; expected lines, a table or FASTA of DNA, got {shorten(rows[0], 80)!r}; "
            "fix: another file, or name the column of sequences"
        )
