"""Score a model on labelled rows: table -> predictions -> scores per label and per group of rows."""

import re
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from model.artifacts.model_directory import find_model_folder, model_labels
from model.prediction.assay_fit import AssayFit
from model.prediction.evaluation_request import EvaluationLayout, EvaluationRequest
from model.prediction.files import PREFETCH_PARTS, OnProgress, nothing_predicted, read_settings, run_on_ranks
from model.prediction.inputs import Part
from model.prediction.journal import PredictParts, open_journal
from model.prediction.predictor import BATCH, default_device
from model.prediction.tables import TableInput, as_texts, read_batches, read_numbers
from model.prediction.validate import validate_more
from model.prediction.writers import ProblemReport
from model.runs.training_rows import SequenceHashes, find_training_rows
from model.scoring.scores import RegressionScores, score_regression
from pipeline.config.schema import Assay
from pipeline.dataset.input.repairs import suggest_repairs
from pipeline.dataset.input.row_count import count_rows
from pipeline.dataset.input.view import define_rules
from pipeline.errors import UserError
from pipeline.io.arrow import rebatch
from pipeline.runtime.prefetch import prefetch
from pipeline.runtime.text import format_count

MOST_GROUPS = 200
"""More groups are no table that can be read."""
NO_GROUP = "(missing)"
"""Group of the rows without a value in the column of groups."""

WITHOUT_TRAINING_ROWS = ", no training rows"
"""Follows a label in the title of the scores of the other rows."""

Numbers = npt.NDArray[np.floating]


@dataclass(frozen=True)
class LabelledRows:
    """Predictions and labels of all rows, in input order: float (rows, labels) each, NaN where there is none.

    groups: of each row; empty without a column of groups. is_training: whether the model was fine-tuned on the sequence
    of each row, bool (rows,); None if that is not known.
    """

    predictions: Numbers
    labels: Numbers
    groups: list[str] = field(default_factory=list)
    is_training: npt.NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class EvaluationResult:
    """Scores of a model on labelled rows.

    rows, rows_resumed, problems, hint, seconds, rows_per_second, sequence_column: as in PredictionResult.
    label_columns: label of the model -> column of the input. scores: by label; groups: by group, then by label.
    mean_pearson: over the labels with at least two rows. page: the file written, or None.

    training_rows: rows whose sequence the model was fine-tuned on; None if that is not known, and training_rows_problem
    says why. scores_without_training_rows: of the other rows, by label; empty without training rows.
    """

    rows: int
    rows_resumed: int
    problems: dict[str, int]
    hint: str
    seconds: float
    rows_per_second: float
    sequence_column: str
    label_columns: dict[str, str]
    group_column: str | None
    scores: dict[str, RegressionScores]
    mean_pearson: float
    groups: dict[str, dict[str, RegressionScores]]
    training_rows: int | None
    training_rows_problem: str
    scores_without_training_rows: dict[str, RegressionScores]
    page: str | None = None

    @property
    def titled_scores(self) -> dict[str, RegressionScores]:
        """Scores of the table of labels, by the title of their line."""
        others = self.scores_without_training_rows
        return self.scores | {f"{label}{WITHOUT_TRAINING_ROWS}": scores for label, scores in others.items()}

    def as_dict(self) -> dict[str, Any]:
        """Return the values of --json."""
        return asdict(self)

    def describe_training_rows(self) -> str:
        """Describe the training rows among the rows; an empty text without any, or if that is not known."""
        if not self.training_rows:
            return ""
        return (
            f"{self.training_rows:,} of {format_count(self.rows, 'row')} are training rows of the model, so the scores "
            "of all rows do not measure predictions of new sequences"
        )


def evaluate(
    request: EvaluationRequest,
    on_progress: OnProgress = lambda _done, _total, _resumed: None,
    warn: Callable[[str], None] = lambda _: None,
) -> tuple[EvaluationResult, LabelledRows] | None:
    """Predict labelled rows and score the predictions. Returns the scores, and the values behind them.

    With a page as output, an interrupted call resumes; see `predict_files`, also for ranks and `warn`. Raises UserError
    for an invalid model or input, if no row is valid, and if no valid row has a label.
    """
    request = replace(request, model=find_model_folder(request.model))
    return run_on_ranks(request, lambda predict: _evaluate(request, predict, on_progress, warn))


def _evaluate(
    request: EvaluationRequest, predict: PredictParts, on_progress: OnProgress, warn: Callable[[str], None]
) -> tuple[EvaluationResult, LabelledRows]:
    start = time.monotonic()
    table, layout = request.find_table()
    facts, assay = read_settings(request, warn)
    labels, fit = model_labels(facts), AssayFit(facts, assay, warn)
    total = count_rows(table.source)
    reader = prefetch(_read(table, layout, assay, BATCH[default_device().type]), PREFETCH_PARTS, "read labelled rows")
    report = ProblemReport()
    predictions, measured, groups, hashes = list[Numbers](), list[Numbers](), list[str](), SequenceHashes()
    with open_journal(request) as journal, closing(reader) as parts:
        for part, values in journal.resume(parts, predict):
            assert isinstance(part, LabelledPart)
            report.add(part)
            fit.add(part.table["sequence"], part.valid_sequences, part.describe_valid)
            filled = np.full((len(part), len(labels)), np.nan, np.float32)
            filled[part.table["problem"].is_null().to_numpy()] = values.reshape(-1, len(labels))
            predictions.append(filled)
            measured.append(part.labels)
            groups += part.groups
            hashes.add(part.table["repaired"])
            on_progress(report.rows, total, journal.rows_resumed)
        fit.finish()
        hint = suggest_repairs(report.frequent_examples(), assay)
        if report.rows == report.counts.total():
            raise nothing_predicted(request.inputs, report, hint)
        is_training, problem = _find_training_rows(request.model, hashes)
        rows = LabelledRows(np.concatenate(predictions), np.concatenate(measured), groups, is_training)
        if not np.isfinite(rows.labels).any():  # the journal is kept, so that other columns need no new predictions
            names = ", ".join(table.names[number - 1] for number in layout.labels)
            raise UserError(f"{', '.join(request.inputs)}: no number in column {names}; fix: --expression-column NAME")
    seconds = time.monotonic() - start
    scores = _scores(rows, labels, slice(None))
    return EvaluationResult(
        rows=report.rows,
        rows_resumed=journal.rows_resumed,
        problems=dict(report.counts),
        hint=hint,
        seconds=round(seconds, 3),
        rows_per_second=round((report.rows - journal.rows_resumed) / seconds, 1),
        sequence_column=table.names[layout.sequence - 1],
        label_columns={label: table.names[number - 1] for label, number in zip(labels, layout.labels, strict=True)},
        group_column=table.names[layout.group - 1] if layout.group else None,
        scores=scores,
        mean_pearson=float(np.mean([score.pearson for score in scores.values() if score.rows > 1] or [0.0])),
        groups=_group_scores(rows, labels),
        training_rows=None if is_training is None else int(is_training.sum()),
        training_rows_problem=problem,
        scores_without_training_rows=(
            _scores(rows, labels, ~is_training) if is_training is not None and is_training.any() else {}
        ),
    ), rows


def _find_training_rows(model: Path, hashes: SequenceHashes) -> tuple[npt.NDArray[np.bool_] | None, str]:
    """Find the training rows of a model. Returns None and the reason if they are not known."""
    try:
        return find_training_rows(model, hashes.read()), ""
    except UserError as error:
        return None, str(error)


@dataclass(frozen=True, kw_only=True)
class LabelledPart(Part):
    """Part of labelled rows. labels: float64 (rows, labels), NaN where there is none; groups: of each row, or empty."""

    labels: npt.NDArray[np.float64]
    groups: list[str]


def _read(table: TableInput, layout: EvaluationLayout, assay: Assay, rows: int) -> Generator[LabelledPart]:
    """Read the table in parts of `rows` rows, the last one shorter."""
    first, seen = 0, set[str]()
    with duckdb.connect() as connection:
        define_rules(connection, assay)
        for whole in rebatch(_checked(connection, table, layout, assay), rows):
            *cells, repaired, problem = whole.columns
            labels = np.stack([read_numbers(cells[number - 1]) for number in layout.labels], axis=1)
            groups = [text or NO_GROUP for text in as_texts(cells[layout.group - 1])] if layout.group else []
            seen.update(groups)
            if len(seen) > MOST_GROUPS:
                name = table.names[layout.group - 1]
                raise UserError(f"--by {name}: more than {MOST_GROUPS} different values; expected groups of rows")
            columns = {"sequence": cells[layout.sequence - 1], "repaired": repaired, "problem": problem}
            yield LabelledPart(first, pa.table(columns), labels=labels, groups=groups)
            first += len(whole)


def _checked(
    connection: duckdb.DuckDBPyConnection, table: TableInput, layout: EvaluationLayout, assay: Assay
) -> Iterator[pa.RecordBatch]:
    """Read the columns of the table, then the repaired sequence and the problem of each row."""
    for batch in read_batches(table, assay):
        *cells, lines = batch.columns
        sequences = pa.array(as_texts(cells[layout.sequence - 1]), pa.string())
        checked = validate_more(connection, sequences.to_pylist())
        cells[layout.sequence - 1] = sequences
        problem = pa.array(
            [line or text for line, text in zip(lines.to_pylist(), checked["problem"].to_pylist(), strict=True)],
            pa.string(),
        )
        arrays = [*cells, checked["repaired"].combine_chunks(), problem]
        yield pa.RecordBatch.from_arrays(arrays, names=[str(number) for number in range(len(arrays))])


def _scores(rows: LabelledRows, labels: tuple[str, ...], where: Any) -> dict[str, RegressionScores]:
    """Score the predictions of some rows, by label."""
    predictions, measured = rows.predictions[where], rows.labels[where]
    return {label: score_regression(predictions[:, n], measured[:, n]) for n, label in enumerate(labels)}


def _group_scores(rows: LabelledRows, labels: tuple[str, ...]) -> dict[str, dict[str, RegressionScores]]:
    """Score each group of rows; groups in the order of their names, and of the numbers in them."""
    groups = np.array(rows.groups)
    return {name: _scores(rows, labels, groups == name) for name in sorted(set(rows.groups), key=_natural_key)}


def _natural_key(name: str) -> list[str | int]:
    """Return a key that sorts chr2 before chr10."""
    return [int(piece) if place % 2 else piece for place, piece in enumerate(re.split(r"([0-9]+)", name))]
