"""Predict the variants of tables of any size in one pass: rows -> predictions of both sequences -> effects."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from model.artifacts.model_directory import find_model_folder, model_labels
from model.prediction.assay_fit import AssayFit
from model.prediction.files import (
    PREFETCH_PARTS,
    OnProgress,
    OutputResult,
    nothing_predicted,
    read_settings,
    run_on_ranks,
)
from model.prediction.journal import Journal, PredictParts, open_journal
from model.prediction.labels import label_columns
from model.prediction.predictor import BATCH, Values, default_device
from model.prediction.request import check_output_is_no_input
from model.prediction.row_writers import buffer_until_valid, rename_clashes
from model.prediction.tables import as_texts, read_numbers
from model.prediction.variants.request import VariantRequest
from model.prediction.variants.rows import (
    ALTERNATIVE,
    REFERENCE,
    SequencePart,
    VariantReader,
    VariantRows,
)
from model.prediction.writers import is_stream, open_output, problems_file
from model.scoring.scores import CorrelationScores, score_correlations
from pipeline.dataset.input.repairs import suggest_repairs
from pipeline.dataset.input.row_count import count_rows
from pipeline.runtime.prefetch import prefetch

NAMES = ("reference_prediction", "alternative_prediction", "effect")
"""Columns that the output adds; with several labels, three columns per label: effect_LABEL."""


@dataclass(frozen=True)
class VariantResult(OutputResult):
    """Result of `predict_variants`.

    columns: the names of the columns that were read, by their role. first_position: number of a sequence's first base,
    None for whole sequences. scores: of predicted and measured effects, by label.
    """

    columns: dict[str, str]
    first_position: int | None
    scores: dict[str, CorrelationScores]

    def as_dict(self) -> dict[str, Any]:
        """Return the values of --json."""
        return asdict(self)


def predict_variants(
    request: VariantRequest,
    on_progress: OnProgress = lambda _done, _total, _resumed: None,
    warn: Callable[[str], None] = lambda _: None,
) -> VariantResult | None:
    """Predict the effects of every row in input order; an invalid row keeps its place, without values.

    Output, resuming, ranks and `warn` are as in `predict_files`. Raises UserError for an invalid model, input or
    output, and if no row is valid.
    """
    request = replace(request, model=find_model_folder(request.model))
    return run_on_ranks(request, lambda predict: _VariantPrediction(request, warn).run(predict, on_progress))


class _VariantPrediction:
    """The run of a request on this process, or on rank 0."""

    def __init__(self, request: VariantRequest, warn: Callable[[str], None]) -> None:
        self.request = request
        self.write = request.find_row_writer()
        self.table, self.layout = request.find_table()
        check_output_is_no_input(request.output, self.table.source)
        facts, self.assay = read_settings(request, warn)
        self.labels, self.fit = model_labels(facts), AssayFit(facts, self.assay, warn)
        self.reader = VariantReader(self.table, self.layout, self.assay)
        self.effects: list[tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]] = []
        """Predicted and measured effects of each part with measured effects."""

    def run(self, predict: PredictParts, on_progress: OnProgress) -> VariantResult:
        start = time.monotonic()
        request, total = self.request, count_rows(self.table.source)
        by_value = [label_columns(name, self.labels) for name in NAMES]
        names = [name for columns in zip(*by_value, strict=True) for name in columns]
        columns = [*rename_clashes(self.table.names, [*names, "problem"]), *names, "problem"]
        rows = prefetch(self.reader.read(BATCH[default_device().type]), PREFETCH_PARTS, "read variants")
        with open_journal(request) as journal, open_output(request.output) as (file, report), closing(rows) as parts:

            def tables() -> Iterator[pa.Table]:
                for part, table in self._predict(parts, journal, predict):
                    report.add(part.problem_part())
                    written = part.kept.column(self.layout.main_sequence - 1)
                    self.fit.add_lengths(part.part_of(ALTERNATIVE).valid_sequences)
                    self.fit.add(pa.array(as_texts(written), pa.string()), part.part_of(REFERENCE).valid_sequences)
                    yield table.rename_columns(columns)
                    on_progress(report.rows, total, journal.rows_resumed // 2)

            predicted = tables()
            if is_stream(request.output):
                predicted = buffer_until_valid(predicted, lambda table: table.columns[-1])
            self.write(file, predicted, len(names))
            report.finish()
            self.fit.finish()
            hint = self.reader.suggest_position() or suggest_repairs(report.frequent_examples(), self.assay)
            if report.rows == report.counts.total():
                raise nothing_predicted(request.inputs, report, hint)
        seconds, resumed = time.monotonic() - start, journal.rows_resumed // 2
        has_list = report.counts and not is_stream(request.output)
        return VariantResult(
            output=request.output,
            rows=report.rows,
            rows_resumed=resumed,
            problems=dict(report.counts),
            hint=hint,
            problems_file=str(problems_file(request.output)) if has_list else None,
            seconds=round(seconds, 3),
            rows_per_second=round((report.rows - resumed) / seconds, 1),
            columns=self.layout.names_by_role(self.table.names),
            first_position=self.layout.first_position if self.layout.position else None,
            scores=self._scores(),
        )

    def _predict(
        self, rows: Iterator[VariantRows], journal: Journal, predict: PredictParts
    ) -> Iterator[tuple[VariantRows, pa.Table]]:
        """Yield the rows with their columns of the output: kept columns, predictions and effects, problem."""
        sides = (part.part_of(column) for part in rows for column in (REFERENCE, ALTERNATIVE))
        values = journal.resume(sides, predict)
        for (_, reference), (part, alternative) in zip(values, values, strict=True):
            assert isinstance(part, SequencePart)
            yield part.rows, self._table(part.rows, reference, alternative)

    def _table(self, rows: VariantRows, reference: Values, alternative: Values) -> pa.Table:
        """Make the output of some rows. reference, alternative: predictions of the valid rows."""
        valid = rows.problem.is_null().to_numpy()
        predictions = np.stack([reference, alternative, alternative - reference])
        filled = np.full((len(NAMES), len(rows), len(self.labels)), np.nan, np.float32)
        filled[:, valid] = predictions.reshape(len(NAMES), -1, len(self.labels))
        if self.layout.effects:
            columns = [read_numbers(rows.kept.column(number - 1)) for number in self.layout.effects]
            self.effects.append((filled[-1], np.stack(columns, axis=1)))
        table = rows.kept
        for label, _ in enumerate(self.labels):
            for name, values in zip(NAMES, filled[:, :, label], strict=True):
                table = table.append_column(name, pa.array(values, from_pandas=True))
        return table.append_column("problem", rows.problem)

    def _scores(self) -> dict[str, CorrelationScores]:
        """Correlate predicted with measured effects, by label, over the rows with both."""
        if not self.effects:
            return {}
        predicted, measured = (np.concatenate(side) for side in zip(*self.effects, strict=True))
        return {
            label: score_correlations(predicted[:, column], measured[:, column])
            for column, label in enumerate(self.labels)
        }
