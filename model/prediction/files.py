"""Predict files of any size in one pass: input -> validate -> predictor -> writer, one part of rows after the other."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial

from model.artifacts.model_directory import describe_unfinished_run, find_model_folder, read_model_facts
from model.distributed.process_group import join_group
from model.prediction.inputs import STANDARD_INPUT, Part, count_rows, read_parts
from model.prediction.journal import Predict, open_journal
from model.prediction.parallel import predict_here, predict_on_ranks, serve_rank_0
from model.prediction.predictor import BATCH, default_device
from model.prediction.request import PredictionRequest, check_output_is_no_input
from model.prediction.writers import check_leaderboard_rows, is_stream, open_output, problems_file
from model.watchdog.client import start_watchdog
from pipeline.dataset.input.repairs import remedy, with_repairs
from pipeline.errors import UserError
from pipeline.runtime.prefetch import prefetch

HELD_ROWS = 65_536
"""Rows without a prediction that are held back from a stream: if no other rows come, nothing is written to it."""
PARTS_AHEAD = 2
"""Parts that are prefetched, so that a GPU does not wait for the reader."""
ONE_STRAND = (
    "the model was fine-tuned on one strand (finetune.reverse_complement=false), so its predictions for the other one "
    "mean little; fix: leave out --both-strands, or use a model that was fine-tuned on both"
)

OnProgress = Callable[[int, int, int], None]
"""Called with rows done, rows in all (0 where unknown), and how many of those done an earlier run had predicted."""


@dataclass(frozen=True)
class PredictionResult:
    """Rows and speed of one call of `predict_files`.

    found: rows that an earlier, killed run had predicted. problems: rows without a prediction, by reason. remedy: the
    repairs that would help some of them, or an empty text. problems_file: the list of them; None where there are none.
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

    warn: called with a warning for a model that was probably not intended. Raises UserError for a model, input or
    output that cannot be used, and where no row can be predicted.
    """
    request = replace(request, model=find_model_folder(request.model))
    if "RANK" not in os.environ:
        return _predict(request, partial(predict_here, request=request), on_progress, warn)
    with start_watchdog(os.environ) as watchdog, join_group(watchdog) as world:
        if world.rank > 0:
            serve_rank_0(request, world)
            return None
        return _predict(request, partial(predict_on_ranks, request=request, world=world), on_progress, warn)


def _predict(
    request: PredictionRequest, predict: Predict, on_progress: OnProgress, warn: Callable[[str], None]
) -> PredictionResult:
    began = time.monotonic()
    source, write = request.find_input(), request.find_writer()
    check_output_is_no_input(request.output, source)
    facts = read_model_facts(request.model)
    if request.both_strands and not facts.get("reverse_complement", True):
        warn(ONE_STRAND)
    if state := describe_unfinished_run(request.model):
        warn(state)
    assay = with_repairs(facts["assay"], request.overrides)
    if request.leaderboard is not None and request.inputs != [STANDARD_INPUT]:
        check_leaderboard_rows(request.leaderboard, read_parts(source, assay, HELD_ROWS))
    total = count_rows(source, assay)
    reader = prefetch(read_parts(source, assay, BATCH[default_device().type]), PARTS_AHEAD, "read promoters")
    with open_journal(request) as journal, open_output(request.output) as (file, report), closing(reader) as parts:

        def predicted_parts() -> Iterator[Part]:
            for part, values in journal.resume(parts, predict):
                report.add(part)
                yield part.with_predictions(values)
                on_progress(report.rows, total, journal.rows_resumed)

        predicted = predicted_parts()
        write(file, _hold_until_predicted(predicted) if is_stream(request.output) else predicted)
        report.finish()
        fix = remedy(report.counts, assay)
        if report.rows == report.counts.total():
            names = "standard input" if request.inputs == [STANDARD_INPUT] else ", ".join(request.inputs)
            reasons = ", ".join(f"{count:,}: {problem}" for problem, count in report.counts.items()) or "no rows"
            raise UserError(f"{names}: nothing to predict ({reasons}){f'; {fix}' if fix else ''}")
    seconds = time.monotonic() - began
    listed = report.counts and not is_stream(request.output)
    return PredictionResult(
        output=request.output,
        rows=report.rows,
        found=journal.rows_resumed,
        problems=dict(report.counts),
        remedy=fix,
        problems_file=str(problems_file(request.output)) if listed else None,
        seconds=round(seconds, 3),
        rows_per_second=round((report.rows - journal.rows_resumed) / seconds, 1),
    )


def _hold_until_predicted(parts: Iterator[Part]) -> Iterator[Part]:
    """Hold rows back until one has a prediction: what is written to a stream cannot be taken back."""
    held: list[Part] = []
    for part in parts:
        held.append(part)
        if part.table["problem"].null_count or sum(map(len, held)) > HELD_ROWS:
            yield from held
            held.clear()
            yield from parts
