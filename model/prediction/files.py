"""Predictions of any number of rows: input -> parts -> values -> output, each part let go once it is written."""

import hashlib
import os
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import numpy as np

from model.artifacts.model_directory import facts_of_model, model_of, unfinished
from model.distributed.process_group import World, joined
from model.prediction.inputs import STANDARD_INPUT, Part, count_rows, read_parts
from model.prediction.journal import Journal, Values
from model.prediction.leaderboard import RefusedError, check_rows
from model.prediction.parallel import Use, follow, lead, predict_parts
from model.prediction.predictor import BATCH, device
from model.prediction.request import Asked, check_is_no_input, format_asked
from model.prediction.writers import Problems, Rows, is_stream, problems_beside
from model.watchdog.client import guarded
from pipeline.dataset.repairs import remedy, with_repairs
from pipeline.errors import UserError
from pipeline.io.atomic import new_file
from pipeline.io.locks import hold_lock
from pipeline.runtime.prefetch import ahead

MOST_TOLD = 20
"""Rows without a prediction that are told on standard error, where the output is no file."""
HELD_ROWS = 65_536
"""Rows without a prediction that a stream waits for: if no other come, nothing is written to it."""
ONE_STRAND = (
    "the model was fine-tuned on one strand (finetune.reverse_complement=false): what it says of the other one means "
    "little. Leave --both-strands away, or take a model that was fine-tuned on both"
)
JOURNAL_FORMAT = 1
PARTS_AHEAD = 2
"""Parts read before they are needed, so that a GPU does not wait for the reader."""

Spread = Callable[[Iterator[Part]], Generator[tuple[Part, Values]]]
Progress = Callable[[int, int, int], None]
"""Told rows that are through, rows in all (0 where that is not known), and how many were there from a killed run."""


@dataclass(frozen=True)
class Predicted:
    """What `predict_files` did. found: rows that a killed run had predicted; problems: rows without a prediction, by
    reason; remedy: what would repair some of them, or nothing; problems_file: where they are told one by one."""

    output: str
    rows: int
    found: int
    problems: dict[str, int]
    remedy: str
    problems_file: str | None
    seconds: float
    rows_per_second: float


def predict_files(
    asked: Asked,
    progress: Progress = lambda _done, _total, _found: None,
    warn: Callable[[str], None] = lambda _: None,
) -> Predicted | None:
    """Predict every row, in the order of the input; a row that cannot be predicted keeps its place, without a value.

    An output file appears whole or not at all. A killed call leaves what it had predicted beside it, in .NAME.partial,
    and the next one for the same rows, model and settings goes on from there, to the same bytes, with any number of
    processes. Under a launcher (deepspeed, torchrun) all ranks call this and predict; None on all but rank 0.

    warn: told what is done all the same, but is hardly meant. Raises UserError for a model, input or output that cannot
    be used, and where not one row is a promoter.
    """
    asked = replace(asked, model=model_of(asked.model))
    use = Use(asked.model, asked.both_strands)
    if "RANK" not in os.environ:
        return _predict(asked, lambda parts: predict_parts(parts, use, asked.workers), progress, warn)
    with guarded(os.environ) as guard, joined(guard) as world:
        return _predict_as_rank(asked, use, world, progress, warn)


def _predict_as_rank(
    asked: Asked, use: Use, world: World, progress: Progress, warn: Callable[[str], None]
) -> Predicted | None:
    if not world.is_rank0:
        follow(use)
        return None
    return _predict(asked, lambda parts: lead(parts, use, world), progress, warn)


def _predict(asked: Asked, spread: Spread, progress: Progress, warn: Callable[[str], None]) -> Predicted:
    began = time.monotonic()
    given = asked.find_rows()
    write = format_asked(asked)
    check_is_no_input(asked.output, given)
    facts = facts_of_model(asked.model)
    if asked.both_strands and not facts.get("reverse_complement", True):
        warn(ONE_STRAND)
    if state := unfinished(asked.model):
        warn(state)
    assay = with_repairs(facts["assay"], asked.overrides)
    if asked.leaderboard is not None and asked.names != [STANDARD_INPUT]:
        check_rows(asked.leaderboard, read_parts(asked.find_rows(), assay, HELD_ROWS))
    total = count_rows(given, assay)
    with ExitStack() as stack:
        journal = None if is_stream(asked.output) else stack.enter_context(_journal(asked))
        file, problems = stack.enter_context(_sink(asked.output))
        read = read_parts(given, assay, BATCH[device().type])
        parts = stack.enter_context(closing(ahead(read, PARTS_AHEAD, "read promoters")))
        through = _Through(total, problems, progress)
        rows = through.rows(_remembered(parts, spread, journal, through))
        write(file, rows if journal is not None else _from_a_prediction_on(rows))
        problems.end()
        if through.done == sum(problems.counts.values()):
            why = ", ".join(f"{count:,}: {problem}" for problem, count in problems.counts.items()) or "no rows"
            mend = remedy(problems.counts, assay)
            raise UserError(f"{_named(asked.names)}: nothing to predict ({why}){f'; {mend}' if mend else ''}")
    seconds = time.monotonic() - began
    told = str(problems_beside(asked.output)) if problems.counts and not is_stream(asked.output) else None
    rate = round((through.done - through.found) / seconds, 1)
    mend = remedy(problems.counts, assay)
    return Predicted(asked.output, through.done, through.found, problems.counts, mend, told, round(seconds, 3), rate)


class _Through:
    """Counts rows on their way from model to output, and tells of them."""

    def __init__(self, total: int, problems: Problems, progress: Progress) -> None:
        self.done = 0
        self.found = 0
        self._total = total
        self._problems = problems
        self._progress = progress

    def rows(self, predicted: Iterator[tuple[Part, Values]]) -> Iterator[Rows]:
        """Parts and the values of their usable rows -> rows of the output."""
        for part, values in predicted:
            problem = part.table["problem"]
            prediction = np.full(len(part), np.nan, np.float32)
            prediction[problem.is_null().to_numpy()] = values
            name = part.table["name"] if "name" in part.table.column_names else None
            rows = Rows(part.first, part.table["sequence"], prediction, problem, name)
            self._problems.note(rows)
            yield rows
            self.done += len(part)
            self._progress(self.done, self._total, self.found)


def _from_a_prediction_on(rows: Iterator[Rows]) -> Iterator[Rows]:
    """All rows, once one of them has a prediction; what is written to a stream cannot be taken back."""
    held: list[Rows] = []
    for part in rows:
        held.append(part)
        if part.problem.null_count or sum(len(each.prediction) for each in held) > HELD_ROWS:
            yield from held
            held.clear()
            yield from rows


def _remembered(
    parts: Iterator[Part], spread: Spread, journal: Journal | None, through: _Through
) -> Generator[tuple[Part, Values]]:
    """The values that a journal holds, then those that `spread` makes, which the journal is given."""
    if journal is None:
        yield from spread(parts)
        return
    rest: Iterator[Part] = iter(())
    for part in parts:
        values = journal.take(part.usable)
        if values is None:
            rest = chain([part], parts)
            break
        through.found += len(part)
        yield part, values
    # Also where nothing is left to do: other ranks wait to hear that.
    with closing(spread(rest)) as predicted:
        for part, values in predicted:
            journal.add(part.usable, values)
            yield part, values


@contextmanager
def _journal(asked: Asked) -> Iterator[Journal]:
    """What an earlier, killed call predicted for the same output; nobody else writes it meanwhile."""
    output = Path(asked.output)
    path = output.with_name(f".{output.name}.partial")
    lock_path = output.with_name(f".{output.name}.lock")
    with hold_lock(lock_path, f"is predicting into {output}; wait for it, or name another output"):
        # What a kill left of the output itself is of no use: it is written again from the journal.
        for name in (output.name, problems_beside(asked.output).name):
            for leftover in output.parent.glob(f".*.partial.{name}"):
                leftover.unlink(missing_ok=True)
        with closing(Journal(path, _key(asked))) as journal:
            try:
                yield journal
            except BaseException as error:
                if not journal.holds_any or isinstance(error, RefusedError):
                    path.unlink()
                    lock_path.unlink()
                raise
        path.unlink()
        lock_path.unlink()


def _key(asked: Asked) -> str:
    """Of all that decides a sequence's value: the model's bytes, and how it is used."""
    key = hashlib.sha256(f"{JOURNAL_FORMAT} {asked.both_strands} {device().type} {BATCH}".encode())
    for file in sorted(asked.model.iterdir()):
        if file.name == "config.json" or file.suffix in (".safetensors", ".bin"):
            with file.open("rb") as data:
                key.update(file.name.encode() + hashlib.file_digest(data, "sha256").digest())
    return key.hexdigest()


@contextmanager
def _sink(output: str) -> Iterator[tuple[BinaryIO, Problems]]:
    """Where rows and problems are written: open files, which get their names at the end of the block."""
    if output == "-":
        yield sys.stdout.buffer, _on_standard_error()
        sys.stdout.flush()
    elif is_stream(output):
        with Path(output).open("wb") as file:
            yield file, _on_standard_error()
    else:
        beside = problems_beside(output)
        with new_file(beside) as of_problems, of_problems.open("w", encoding="utf-8") as lines:
            problems = Problems(lines)
            with new_file(Path(output)) as temporary, temporary.open("wb") as file:
                yield file, problems
        if not problems.counts:
            beside.unlink()


def _on_standard_error() -> Problems:
    return Problems(sys.stderr, MOST_TOLD)


def _named(names: list[str]) -> str:
    return "standard input" if names == [STANDARD_INPUT] else ", ".join(names)
