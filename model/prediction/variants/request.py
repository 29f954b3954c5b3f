"""The options of `variants`, and their checks that need no torch (its import takes seconds)."""

from dataclasses import dataclass, field
from pathlib import Path

from model.artifacts.model_directory import model_labels, read_model_facts
from model.prediction.inputs import STANDARD_INPUT
from model.prediction.request import PredictionRequest, check_output_is_no_input, expect_output
from model.prediction.row_writers import ROW_WRITERS, RowWriter, write_tsv
from model.prediction.tables import TableInput, find_table
from model.prediction.variants.columns import VariantColumns, VariantLayout, choose_variant_columns
from model.prediction.writers import is_stream
from pipeline.dataset.input.files import read_head
from pipeline.dataset.input.repairs import with_repairs
from pipeline.errors import UserError


@dataclass(frozen=True)
class VariantRequest(PredictionRequest):
    """One call of `variants`. inputs: files or glob patterns of one table."""

    variants: VariantColumns = field(default_factory=VariantColumns)

    def find_table(self) -> tuple[TableInput, VariantLayout]:
        """Resolve the input files, and choose the columns by the head of the first.

        Raises UserError for unreadable files, and for columns that are missing or ambiguous.
        """
        if STANDARD_INPUT in self.inputs:
            raise UserError("-: variants are read from files; fix: save the table as a .tsv file")
        head = read_head(self.inputs)
        layout = choose_variant_columns(head, self.variants)
        labels, effects = model_labels(read_model_facts(self.model)), len(layout.effects)
        if effects not in (0, len(labels)):
            names = ", ".join(labels)
            raise UserError(f"--effect-column: expected once per label of the model ({names}), got {effects} columns")
        return find_table(self.inputs, head, layout.main_sequence), layout

    def find_row_writer(self) -> RowWriter:
        """Choose the writer by the suffix of the output; lines for a stream. Raises UserError for other suffixes."""
        expect_output(self.output, ROW_WRITERS)
        return write_tsv if is_stream(self.output) else ROW_WRITERS[Path(self.output).suffix]


def check_variants(request: VariantRequest) -> None:
    """Check the model, the output and the columns of the input. Raises UserError; reads no rows."""
    with_repairs(read_model_facts(request.model)["assay"], request.overrides)
    request.find_row_writer()
    check_output_is_no_input(request.output, request.find_table()[0].source)
