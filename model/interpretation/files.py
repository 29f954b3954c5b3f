"""Explain the rows of files in one pass: rows -> mutants -> predictor -> tables and figures."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import pyarrow as pa

from model.artifacts.model_directory import find_model_folder, labels_of, model_labels, read_sequence_name
from model.interpretation.command import table_command
from model.interpretation.explained import ExplainedRow, ExplainedSequence
from model.interpretation.outputs import ExplainWriter, check_outputs, has_table, open_outputs
from model.interpretation.request import ExplainRequest, RowSource, check_files
from model.interpretation.rows import MutantPart
from model.interpretation.rows_page import RowCounts, render_rows_page
from model.interpretation.saturation_mutagenesis import arrange_by_label, count_mutants, find_insert
from model.interpretation.sections import PageFacts
from model.prediction.assay_fit import AssayFit
from model.prediction.files import PREFETCH_PARTS, OnProgress, nothing_predicted, read_settings
from model.prediction.journal import Journal, open_journal, remove_partial_files
from model.prediction.parallel import predict_here
from model.prediction.predictor import BATCH, Values, default_device
from model.prediction.writers import ProblemReport, open_report, problems_file
from pipeline.dataset.input.repairs import suggest_repairs
from pipeline.dataset.input.row_count import count_rows
from pipeline.runtime.prefetch import prefetch

MOST_REJECTED = 10
"""Rows without a prediction that a page lists."""


@dataclass(frozen=True)
class ExplainFilesResult:
    """Files that `explain` wrote from the rows of other files.

    rows: that were read; rows_total: of the input, 0 if unknown. Without a table among the outputs, only the rows to be
    drawn are read; is_complete: whether these are known to be all. rows_drawn: in pages and figures. columns: that were
    read, by role; empty for FASTA. substitutions: number of rows of a table. For the others see OutputResult.
    """

    outputs: list[str]
    rows: int
    rows_total: int
    is_complete: bool
    rows_drawn: int
    rows_resumed: int
    substitutions: int
    columns: dict[str, str]
    problems: dict[str, int]
    hint: str
    problems_file: str | None
    seconds: float
    rows_per_second: float

    def as_dict(self) -> dict[str, Any]:
        """Return the values of --json."""
        return asdict(self)


def explain_files(
    request: ExplainRequest,
    on_progress: OnProgress = lambda _done, _total, _resumed: None,
    warn: Callable[[str], None] = lambda _: None,
) -> ExplainFilesResult:
    """Explain every row in input order; invalid rows are listed in a problems file beside the first output.

    Output files are written atomically. The same call resumes an interrupted one. warn: called with a warning about a
    model that is unfinished, or about sequences that do not fit it. Raises UserError for an invalid model, input,
    output, label or motif file, and if no row is valid.
    """
    check_outputs(request.outputs, request.motifs)
    request = replace(request, model=find_model_folder(request.model))
    return _Explanation(request, warn).run(on_progress)


class _Explanation:
    """The run of a request."""

    def __init__(self, request: ExplainRequest, warn: Callable[[str], None]) -> None:
        self.request = request
        self.labels = request.choose_labels()
        self.source: RowSource = request.find_source()
        check_files(request.outputs, self.source.input)
        facts, self.assay = read_settings(request.prediction, warn)
        self.model_labels, self.several_labels = model_labels(facts), bool(labels_of(facts))
        self.fit = AssayFit(facts, self.assay, warn, unseen_share=0)
        self.scanner = request.make_scanner()
        name = read_sequence_name(request.model)
        self.page_facts = PageFacts(
            request.model,
            name,
            facts.get("insert_lengths"),
            (len(self.assay.left_adapter), len(self.assay.right_adapter)),
            self.scanner,
            request.motifs,
            table_command(
                request.model,
                request.inputs,
                request.columns,
                request.variants,
                request.label,
                request.motifs,
                request.overrides,
            ),
        )
        self.substitutions = 0
        self.rejected: list[tuple[int, str, str]] = []
        """Number, name and problem of the first rows without a prediction."""

    def run(self, on_progress: OnProgress) -> ExplainFilesResult:
        start = time.monotonic()
        request, total, source = self.request, count_rows(self.source.input), self.source
        part_rows = max(1, BATCH[default_device().type] // (3 * self.assay.max_insert))
        reader = prefetch(source.read(self.assay, part_rows), PREFETCH_PARTS, "read rows")
        with (
            self._open_journal() as journal,
            open_report(request.prediction.output) as report,
            open_outputs(request.outputs, self.several_labels, source.is_named) as writer,
            closing(reader) as parts,
        ):
            done = lambda: on_progress(report.rows, total, journal.rows_resumed)  # noqa: E731
            is_complete = self._explain_parts(parts, journal, report, writer, done) or report.rows == total
            report.finish()
            self.fit.finish()
            hint = source.suggest_position() or suggest_repairs(report.frequent_examples(), self.assay)
            if report.rows == report.counts.total():
                raise nothing_predicted(request.inputs, report, hint)
            counts = RowCounts(report.rows, report.counts.total(), total, is_complete, request.outputs, self.rejected)
            writer.draw(lambda: render_rows_page(writer.drawn, self.several_labels, counts, self.page_facts))
        seconds = time.monotonic() - start
        return ExplainFilesResult(
            outputs=[str(output) for output in request.outputs],
            rows=report.rows,
            rows_total=total,
            is_complete=is_complete,
            rows_drawn=len(writer.drawn),
            rows_resumed=journal.rows_resumed,
            substitutions=self.substitutions,
            columns=source.columns,
            problems=dict(report.counts),
            hint=hint,
            problems_file=str(problems_file(request.prediction.output)) if report.counts else None,
            seconds=round(seconds, 3),
            rows_per_second=round((report.rows - journal.rows_resumed) / seconds, 1),
        )

    @contextmanager
    def _open_journal(self) -> Iterator[Journal]:
        with open_journal(self.request.prediction) as journal:
            remove_partial_files(self.request.outputs)
            yield journal

    def _explain_parts(
        self,
        parts: Iterator[MutantPart],
        journal: Journal,
        report: ProblemReport,
        writer: ExplainWriter,
        on_part: Callable[[], None],
    ) -> bool:
        """Explain the rows until the end, or until all figures have a row if no table needs the others.

        Returns whether the end was reached.
        """
        predicted = journal.resume(parts, partial(predict_here, request=self.request.prediction))
        with closing(predicted):
            for part, values in predicted:
                assert isinstance(part, MutantPart)
                report.add(part.source)
                self.rejected += part.list_rejected(MOST_REJECTED - len(self.rejected))
                self._check_fit(part)
                for row in self._arrange(part, values):
                    writer.add(row)
                on_part()
                if writer.is_full and not has_table(self.request.outputs):
                    return False
        return True

    def _check_fit(self, part: MutantPart) -> None:
        first, *others = zip(*(row.sides.values() for row in part.rows), strict=True) if part.rows else [()]
        for sequences in others:
            self.fit.add_lengths(pa.array(sequences, pa.string()), part.describe_row)
        self.fit.add(part.written, pa.array(first, pa.string()), part.describe_row)

    def _arrange(self, part: MutantPart, values: Values) -> Iterator[ExplainedRow]:
        """Yield the rows of a part. values: predictions of each promoter and its mutants, (sequences, ...)."""
        start = 0
        for row in part.rows:
            sides = {}
            for side, promoter in row.sides.items():
                end = start + 1 + count_mutants(promoter, self.assay)
                sides[side] = self._explain(promoter, values[start:end])
                self.substitutions += (end - start - 1) * len(self.labels)
                start = end
            yield ExplainedRow(sides, row.number, row.name)

    def _explain(self, promoter: str, values: Values) -> ExplainedSequence:
        results = arrange_by_label(promoter, values, self.model_labels, self.assay)
        start, insert = len(self.assay.left_adapter), find_insert(promoter, self.assay)
        hits = self.scanner.scan(promoter, start, len(insert)) if self.scanner else None
        return ExplainedSequence({label: results[label] for label in self.labels}, hits)
