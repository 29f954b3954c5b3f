"""The options of `evaluate`, and their checks that need no torch (its import takes seconds)."""

from dataclasses import dataclass
from pathlib import Path

from model.artifacts.model_directory import model_labels, read_model_facts
from model.prediction.inputs import STANDARD_INPUT
from model.prediction.request import PredictionRequest
from model.prediction.tables import TableInput, find_table
from pipeline.dataset.input.cells import Table
from pipeline.dataset.input.columns import Columns, choose_columns, find_field
from pipeline.dataset.input.files import read_head
from pipeline.dataset.input.repairs import with_repairs
from pipeline.errors import UserError
from pipeline.reporting.html import expect_page_name


@dataclass(frozen=True)
class EvaluationLayout:
    """The chosen columns, by number from 1. labels: in the order of the model's labels; group: 0 for none."""

    sequence: int
    labels: tuple[int, ...]
    group: int


@dataclass(frozen=True)
class EvaluationRequest(PredictionRequest):
    """One call of `evaluate`. inputs: files or glob patterns of one table. output: page (.html), or - for none.

    label_columns: empty for the columns with the names of the model's labels, or the detected one; group: a column
    whose values divide the rows.
    """

    label_columns: tuple[str, ...] = ()
    group: str | None = None

    def find_table(self) -> tuple[TableInput, EvaluationLayout]:
        """Resolve the input files, and choose the columns by the head of the first.

        Raises UserError for unreadable files, and for columns that are missing or ambiguous.
        """
        if STANDARD_INPUT in self.inputs:
            raise UserError("-: labelled rows are read from files; fix: save the table as a .tsv file")
        head = read_head(self.inputs)
        layout = self._choose(head, model_labels(read_model_facts(self.model)))
        return find_table(self.inputs, head, layout.sequence), layout

    def _choose(self, head: Table, labels: tuple[str, ...]) -> EvaluationLayout:
        sequence = self.columns.sequence if self.columns else None
        requested = self.label_columns or (labels if len(labels) > 1 else ())
        if requested and len(requested) != len(labels):
            raise UserError(
                f"--expression-column: expected once per label of the model ({', '.join(labels)}), got {len(requested)}"
            )
        if requested:
            fields = tuple(find_field(head, name) for name in requested)
            chosen = choose_columns(head, Columns(sequence), labelled=False).sequence
        else:
            choice = choose_columns(head, Columns(sequence), labelled=True, optional=False)
            fields, chosen = (choice.expression,), choice.sequence
        if not all(fields):
            raise UserError(f"{head.file}: no column of labels; fix: --expression-column NAME")
        return EvaluationLayout(chosen, fields, find_field(head, self.group) if self.group else 0)


def check_evaluation(request: EvaluationRequest) -> None:
    """Check the model, the page's name and the columns of the input. Raises UserError; reads no rows."""
    with_repairs(read_model_facts(request.model)["assay"], request.overrides)
    if request.output != "-":
        expect_page_name(Path(request.output))
    request.find_table()
