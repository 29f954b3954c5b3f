"""Predict files of any size in one pass: input -> validate -> predictor -> writer, one part of rows after the other."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial

from model.artifacts.model_directory import facts_of_model, model_of, unfinished
from model.distributed.process_group import join_group
from model.prediction.inputs import STANDARD_INPUT, Part, count_rows, read_parts
from model.prediction.journal import Predict, open_journal
from model.prediction.output import ProblemReport, open_output, problems_file
from model.prediction.parallel import predict_here, predict_on_ranks, serve_rank_0
from model.prediction.predictor import BATCH, PredictorSpec, Values, default_device
from model.prediction.request import PredictionRequest, check_output_is_no_input
from model.prediction.writers import PredictedRows, check_leaderboard_rows, is_stream
from model.watchdog.client import start_watchdog
from pipeline.config.schema import Assay
from pipeline.dataset.input.repairs import remedy, with_repairs
from pipeline.errors import UserError
from pipeline.runtime.prefetch import prefetch

HELD_ROWS = 65_536
"""Rows without a prediction that a stream holds back: if no other rows come, nothing is written to it."""
PARTS_AHEAD = 2
"""Parts that are read before they are needed, so that a GPU does not wait for the reader."""
ONE_STRAND = (
    "the model was fine-tuned on one strand (finetune.reverse_complement=false), so its predictions for the other one "
    "mean little; fix: leave out --both-strands, or use a model that was fine-tuned on both"
)

OnProgress = Callable[[int, int, int], None]
"""Called with rows done, rows in all (0 where unknown), and how many of those done an earlier run had predicted."""


@dataclass(frozen=True)
class PredictionResult:
    """What `predict_files` did.

    found: rows that an earlier, killed run had predicted. problems: rows without a prediction, by reason. remedy: the
    repairs that would help some of them, or an empty text. problems_file: lists them one by one.
    """

    output: str
    rows: int
    found: int
    problems: dict[str, int]
    remedy: str
    problems_file: str | None
    seconds: float
    rows_per_second: float


def predict_files(
    request: PredictionRequest,
    on_progress: OnProgress = lambda _done, _total, _resumed: None,
    warn: Callable[[str], None] = lambda _: None,
) -> PredictionResult | None:
    """Predict every row, in the order of the input; an invalid row keeps its place, without a value.

    Output files are written atomically. A killed call leaves its predictions in a hidden journal beside the output, and
    the next call for the same rows, model and settings resumes from it, to the same bytes, with any number of
    processes. Under a launcher (deepspeed, torchrun) all ranks call this; the others than rank 0 return None.

    warn: called with what is unlikely to be meant. Raises UserError for a model, input or output that cannot be used,
    and where no row can be predicted.
    """
    request = replace(request, model=model_of(request.model))
    spec = PredictorSpec(request.model, request.both_strands)
    if "RANK" not in os.environ:
        here = partial(predict_here, spec=spec, workers=request.workers)
        return _predict(request, spec, here, on_progress, warn)
    with start_watchdog(os.environ) as watchdog, join_group(watchdog) as world:
        if world.rank > 0:
            serve_rank_0(spec, world)
            return None
        return _predict(request, spec, partial(predict_on_ranks, spec=spec, world=world), on_progress, warn)


def _predict(
    request: PredictionRequest,
    spec: PredictorSpec,
    predict: Predict,
    on_progress: OnProgress,
    warn: Callable[[str], None],
) -> PredictionResult:
    began = time.monotonic()
    source, write = request.find_input(), request.find_writer()
    check_output_is_no_input(request.output, source)
    assay = _assay_of_model(request, warn)
    if request.leaderboard is not None and request.inputs != [STANDARD_INPUT]:
        check_leaderboard_rows(request.leaderboard, read_parts(request.find_input(), assay, HELD_ROWS))
    total = count_rows(source, assay)
    with ExitStack() as stack:
        journal = stack.enter_context(open_journal(request.output, spec))
        file, report = stack.enter_context(open_output(request.output))
        reader = read_parts(source, assay, BATCH[default_device().type])
        parts = stack.enter_context(closing(prefetch(reader, PARTS_AHEAD, "read promoters")))
        predicted = journal.resume(parts, predict)
        rows = _rows(predicted, report, lambda done: on_progress(done, total, journal.rows_resumed))
        write(file, _hold_until_predicted(rows) if is_stream(request.output) else rows)
        report.finish()
        if report.rows == report.rows_without_prediction:
            raise _nothing_to_predict(request, report, assay)
    return _result(request, report, journal.rows_resumed, assay, time.monotonic() - began)


def _assay_of_model(request: PredictionRequest, warn: Callable[[str], None]) -> Assay:
    """Return the model's assay with the repairs asked for; warn of models that are unlikely to be meant."""
    facts = facts_of_model(request.model)
    if request.both_strands and not facts.get("reverse_complement", True):
        warn(ONE_STRAND)
    if state := unfinished(request.model):
        warn(state)
    return with_repairs(facts["assay"], request.overrides)


def _rows(
    predicted: Iterator[tuple[Part, Values]], report: ProblemReport, on_rows: Callable[[int], None]
) -> Iterator[PredictedRows]:
    """Yield the rows to write; report each part before it is written, and tell of it afterwards."""
    for part, values in predicted:
        rows = PredictedRows.of_part(part, values)
        report.add(rows)
        yield rows
        on_rows(report.rows)


def _hold_until_predicted(rows: Iterator[PredictedRows]) -> Iterator[PredictedRows]:
    """Hold rows back until one has a prediction: what is written to a stream cannot be taken back."""
    held: list[PredictedRows] = []
    for part in rows:
        held.append(part)
        if part.problem.null_count or sum(len(each.prediction) for each in held) > HELD_ROWS:
            yield from held
            held.clear()
            yield from rows


def _nothing_to_predict(request: PredictionRequest, report: ProblemReport, assay: Assay) -> UserError:
    names = "standard input" if request.inputs == [STANDARD_INPUT] else ", ".join(request.inputs)
    reasons = ", ".join(f"{count:,}: {problem}" for problem, count in report.counts.items()) or "no rows"
    fix = remedy(report.counts, assay)
    return UserError(f"{names}: nothing to predict ({reasons}){f'; {fix}' if fix else ''}")


def _result(
    request: PredictionRequest, report: ProblemReport, resumed: int, assay: Assay, seconds: float
) -> PredictionResult:
    listed = report.counts and not is_stream(request.output)
    return PredictionResult(
        output=request.output,
        rows=report.rows,
        found=resumed,
        problems=report.counts,
        remedy=remedy(report.counts, assay),
        problems_file=str(problems_file(request.output)) if listed else None,
        seconds=round(seconds, 3),
        rows_per_second=round((report.rows - resumed) / seconds, 1),
    )
