"""Predict files of any size in one pass, part by part: input -> validate -> predictor -> writer."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, TypeVar

import pyarrow.compute as pc

from model.artifacts.model_directory import describe_unfinished_run, find_model_folder, labels_of, read_model_facts
from model.distributed.process_group import join_group
from model.prediction.assay_fit import AssayFit
from model.prediction.inputs import STANDARD_INPUT, Part, read_parts
from model.prediction.journal import PredictParts, open_journal
from model.prediction.labels import LabelScorer, LabelScores
from model.prediction.parallel import predict_here, predict_on_ranks, serve_rank_0
from model.prediction.predictor import BATCH, default_device
from model.prediction.request import PredictionRequest, check_output_is_no_input
from model.prediction.row_writers import BUFFER_ROWS, buffer_until_valid
from model.prediction.writers import ProblemReport, check_leaderboard_rows, is_stream, open_output, problems_file
from model.watchdog.client import start_watchdog
from pipeline.config.schema import Assay
from pipeline.dataset.input.repairs import suggest_repairs, with_repairs
from pipeline.dataset.input.row_count import count_rows
from pipeline.errors import UserError
from pipeline.runtime.prefetch import prefetch
from pipeline.runtime.text import format_count

PREFETCH_PARTS = 2
"""Parts that are prefetched, so that a GPU does not wait for the reader."""
ONE_STRAND = (
    "--both-strands: the model was fine-tuned on one strand (finetune.reverse_complement=false), so its predictions of "
    "reverse complements are unreliable; fix: omit --both-strands, or fine-tune with finetune.reverse_complement=true"
)

Result = TypeVar("Result")
OnProgress = Callable[[int, int, int], None]
"""Called with the rows done, the total of rows (0 if unknown), and the rows done that an interrupted run predicted."""


@dataclass(frozen=True)
class OutputResult:
    """Rows and speed of one call that predicts rows of files to an output.

    rows_resumed: rows that an interrupted run predicted. problems: reason -> number of rows without a prediction. hint:
    the repairs that would make some of these rows valid, or an empty text. problems_file: list of these rows; None for
    a stream or if there are none. rows_per_second: without rows_resumed.
    """

    output: str
    rows: int
    rows_resumed: int
    problems: dict[str, int]
    hint: str
    problems_file: str | None
    seconds: float
    rows_per_second: float


@dataclass(frozen=True)
class PredictionResult(OutputResult):
    """Result of `predict_files`.

    sequence_column: its name or number; None for FASTA. sequence_lengths: shortest and longest promoter after repairs,
    in bases, adapters included.

    label_scores: of the predictions on the rows that have a label in label_column. None if no column is clearly that of
    the labels, for standard input, and for a model of several labels.
    """

    sequence_column: str | None
    sequence_lengths: tuple[int, int]
    adapters_added: int = 0
    """Rows without adapters to which the assay's were added, as its setting missing_adapters=add requests."""
    label_column: str | None = None
    label_scores: LabelScores | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the values of --json, without scores; the keys `found` and `remedy` are those of earlier versions."""
        keys = {"rows_resumed": "found", "hint": "remedy"}
        values = asdict(self)
        del values["label_column"], values["label_scores"], values["adapters_added"]
        return {keys.get(name, name): value for name, value in values.items()}


def predict_files(
    request: PredictionRequest,
    on_progress: OnProgress = lambda _done, _total, _resumed: None,
    warn: Callable[[str], None] = lambda _: None,
) -> PredictionResult | None:
    """Predict every row in input order; an invalid row keeps its place, without a value.

    Output files are written atomically. An interrupted call leaves its predictions in a hidden journal beside the
    output. The next call for the same rows, model and settings resumes from it and writes the same bytes, with any
    number of processes. Under a launcher (deepspeed, torchrun) all ranks call this; only rank 0 returns a result.

    warn: called with a warning about a model that is unfinished or does not fit the request. Raises UserError for an
    invalid model, input or output, and if no row is valid.
    """
    request = replace(request, model=find_model_folder(request.model))
    return run_on_ranks(request, lambda predict: _predict(request, predict, on_progress, warn))


def run_on_ranks(request: PredictionRequest, run: Callable[[PredictParts], Result]) -> Result | None:
    """Call `run` with a function that predicts parts in the processes of a request; None on a rank other than 0."""
    if "RANK" not in os.environ:
        return run(partial(predict_here, request=request))
    with start_watchdog(os.environ) as watchdog, join_group(watchdog) as world:
        if world.rank > 0:
            serve_rank_0(request, world)
            return None
        return run(partial(predict_on_ranks, request=request, world=world))


def read_settings(request: PredictionRequest, warn: Callable[[str], None]) -> tuple[dict[str, Any], Assay]:
    """Read the facts of a request's model, and its assay with the requested repairs. warn: as of `predict_files`."""
    facts = read_model_facts(request.model)
    if request.both_strands and not facts.get("reverse_complement", True):
        warn(ONE_STRAND)
    if state := describe_unfinished_run(request.model):
        warn(state)
    return facts, with_repairs(facts["assay"], request.overrides)


def nothing_predicted(names: list[str], report: ProblemReport, hint: str) -> UserError:
    """Make the error for inputs without a valid row. report: of all rows."""
    text = "standard input" if names == [STANDARD_INPUT] else ", ".join(names)
    reasons = ", ".join(f"{format_count(count, 'row')}: {problem}" for problem, count in report.counts.items())
    first = f"; first: {report.first}" if report.first else ""
    return UserError(f"{text}: nothing to predict ({reasons or 'no rows'}{first}){f'; {hint}' if hint else ''}")


def _count_added_adapters(part: Part) -> int:
    """Count the valid rows that became longer: only added adapters do that."""
    longer = pc.greater(pc.binary_length(part.table["repaired"]), pc.binary_length(part.table["sequence"]))
    return int(pc.sum(pc.and_(part.table["problem"].is_null(), longer)).as_py() or 0)


def _predict(
    request: PredictionRequest, predict: PredictParts, on_progress: OnProgress, warn: Callable[[str], None]
) -> PredictionResult:
    start = time.monotonic()
    source, write = request.find_input(), request.find_writer()
    check_output_is_no_input(request.output, source)
    facts, assay = read_settings(request, warn)
    labels, fit, scorer = labels_of(facts), AssayFit(facts, assay, warn), LabelScorer()
    if request.leaderboard is not None and request.inputs != [STANDARD_INPUT]:
        check_leaderboard_rows(request.leaderboard, read_parts(source, assay, BUFFER_ROWS))
    total, adapters_added = count_rows(source), 0
    reader = prefetch(read_parts(source, assay, BATCH[default_device().type]), PREFETCH_PARTS, "read promoters")
    with open_journal(request) as journal, open_output(request.output) as (file, report), closing(reader) as parts:

        def predicted_parts() -> Iterator[Part]:
            nonlocal adapters_added
            for part, values in journal.resume(parts, predict):
                report.add(part)
                fit.add(part.table["sequence"], part.valid_sequences, part.describe_valid)
                scorer.add(part, values)
                adapters_added += _count_added_adapters(part) if assay.missing_adapters == "add" else 0
                yield part.with_predictions(values, labels)
                on_progress(report.rows, total, journal.rows_resumed)

        predicted = predicted_parts()
        write(
            file,
            buffer_until_valid(predicted, lambda part: part.table["problem"])
            if is_stream(request.output)
            else predicted,
        )
        report.finish()
        fit.finish()
        hint = suggest_repairs(report.frequent_examples(), assay)
        if report.rows == report.counts.total():
            raise nothing_predicted(request.inputs, report, hint)
    seconds = time.monotonic() - start
    has_list = report.counts and not is_stream(request.output)
    return PredictionResult(
        output=request.output,
        rows=report.rows,
        rows_resumed=journal.rows_resumed,
        problems=dict(report.counts),
        hint=hint,
        problems_file=str(problems_file(request.output)) if has_list else None,
        seconds=round(seconds, 3),
        rows_per_second=round((report.rows - journal.rows_resumed) / seconds, 1),
        sequence_column=source.column_names[0],
        sequence_lengths=report.lengths,
        adapters_added=adapters_added,
        label_column=source.column_names[1] if source.labelled else None,
        label_scores=scorer.scores(request.model),
    )
