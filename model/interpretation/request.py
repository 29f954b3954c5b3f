"""The options of `explain` for files, and their checks that need no torch (its import takes seconds)."""

from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path

from model.artifacts.model_directory import model_labels, read_model_facts
from model.interpretation.motifs.meme_file import read_motifs
from model.interpretation.motifs.scan import MotifScanner
from model.interpretation.outputs import FIGURE_SUFFIXES, check_outputs
from model.interpretation.rows import MutantPart, find_sequences, read_sequences, read_variants
from model.interpretation.saturation_mutagenesis import choose_label
from model.prediction.inputs import STANDARD_INPUT
from model.prediction.request import PredictionRequest, check_output_is_no_input
from model.prediction.tables import TableInput
from model.prediction.variants.columns import VariantColumns, VariantLayout
from model.prediction.variants.request import VariantRequest
from model.prediction.variants.rows import VariantReader
from model.prediction.writers import problems_file
from pipeline.config.schema import Assay
from pipeline.dataset.input.columns import Columns, find_field
from pipeline.dataset.input.files import Input, read_head
from pipeline.dataset.input.repairs import with_repairs
from pipeline.errors import UserError


@dataclass(frozen=True)
class ExplainRequest:
    """One call of `explain` for files.

    model: folder of a model or of its run. inputs: files, glob patterns, or - for standard input. outputs: files whose
    suffix gives the format. columns: of sequences and names. variants: columns of a table of variants; None for
    sequences. label: None for all labels. motifs: MEME file. workers, overrides: as in PredictionRequest.
    """

    model: Path
    inputs: list[str]
    outputs: list[Path]
    columns: Columns
    variants: VariantColumns | None = None
    label: str | None = None
    motifs: Path | None = None
    workers: int | None = None
    overrides: tuple[str, ...] = ()

    @property
    def prediction(self) -> PredictionRequest:
        """Return the request of the predictions, which the first output's journal resumes."""
        return PredictionRequest(
            self.model, self.inputs, str(self.outputs[0]), self.columns, workers=self.workers, overrides=self.overrides
        )

    def find_source(self) -> "RowSource":
        """Resolve the input files and choose their columns. Raises UserError for an invalid input."""
        if self.variants is None:
            source = find_sequences(self.inputs, self.columns)
            is_named = source.name_column is not None or (source.layout is not None and source.layout.name_field > 0)
            columns = {} if source.column_names[0] is None else {"sequence": source.column_names[0]}
            return RowSource(source, is_named, columns)
        table, layout = VariantRequest(
            self.model, self.inputs, str(self.outputs[0]), variants=self.variants
        ).find_table()
        name = 0 if self.columns.name is None else find_field(read_head(self.inputs), self.columns.name)
        return RowSource(table.source, name > 0, layout.names_by_role(table.names), table, layout, name)

    def choose_labels(self) -> list[str]:
        """Return the labels to explain. Raises UserError for an unknown one, and for several in a figure."""
        names = model_labels(read_model_facts(self.model))
        if self.label is None and not any(output.suffix in FIGURE_SUFFIXES for output in self.outputs):
            return list(names)
        return [choose_label(names, self.label)]

    def make_scanner(self) -> MotifScanner | None:
        """Read the motifs, if there are any. Raises UserError for an invalid file."""
        return None if self.motifs is None else MotifScanner(read_motifs(self.motifs))


@dataclass
class RowSource:
    """Files of rows to explain. columns: names of the columns that are read, by role. table, layout, name: of variants.

    name: number of the column of names, from 1; 0 for none. variants: reader of the variants, once they are read.
    """

    input: Input
    is_named: bool
    columns: dict[str, str]
    table: TableInput | None = None
    layout: VariantLayout | None = None
    name: int = 0
    variants: VariantReader | None = field(default=None, init=False)

    def read(self, assay: Assay, rows: int) -> Generator[MutantPart]:
        """Read the rows in parts. Raises UserError for an unreadable input."""
        if self.table is None or self.layout is None:
            return read_sequences(self.input, assay, rows)
        self.variants = VariantReader(self.table, self.layout, assay)
        return read_variants(self.variants, rows, self.name)

    def suggest_position(self) -> str:
        """Suggest the other numbering of positions as VariantReader does, after reading; else an empty text."""
        return self.variants.suggest_position() if self.variants else ""


def check_explain(request: ExplainRequest) -> None:
    """Check the model, the outputs, the motifs and the columns of the input. Raises UserError; reads no rows."""
    with_repairs(read_model_facts(request.model)["assay"], request.overrides)
    check_outputs(request.outputs, request.motifs)
    request.choose_labels()
    request.make_scanner()
    if STANDARD_INPUT not in request.inputs:  # its head can be read only once
        check_files(request.outputs, request.find_source().input)


def check_files(outputs: list[Path], source: Input) -> None:
    """Raise UserError if an output, or its problems file, is an input file, or if an output is the problems file."""
    for output in outputs:
        check_output_is_no_input(str(output), source)
    problems = problems_file(str(outputs[0]))
    if problems.resolve() in {output.resolve() for output in outputs}:
        raise UserError(f"{problems}: is the list of invalid rows, too; fix: another output, -o NAME")
