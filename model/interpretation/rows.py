"""Read the rows to explain: promoters as `predict` reads them, or variants as `variants` reads them."""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from model.interpretation.explained import ALTERNATIVE, REFERENCE
from model.interpretation.saturation_mutagenesis import list_mutants
from model.prediction.inputs import STANDARD_INPUT, Part, find_prediction_input, name_row, read_parts
from model.prediction.tables import as_texts
from model.prediction.variants import rows as variant_rows
from pipeline.config.schema import Assay
from pipeline.dataset.input.columns import Columns
from pipeline.dataset.input.files import Input

NO_INSERT = "no bases between the adapters"


@dataclass(frozen=True)
class RowToExplain:
    """A valid row. number: from 1. name: or an empty text. sides: repaired promoters, as in ExplainedRow."""

    number: int
    name: str
    sides: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class MutantPart(Part):
    """The promoters of some rows, each followed by its mutants, as a part to predict. Its length is that of the rows.

    rows: the valid ones. source: all of them, for ProblemReport. written: their sequences as written; names: their
    names, or empty texts.
    """

    rows: list[RowToExplain]
    source: Part
    written: pa.Array
    names: Sequence[str]

    def __len__(self) -> int:
        return len(self.source)

    def describe_row(self, place: int) -> str:
        """Name a valid row, such as row 7 (NAME). place: among the valid ones, from 0."""
        row = self.rows[place]
        return name_row(row.number, row.name)

    def list_rejected(self, most: int) -> list[tuple[int, str, str]]:
        """List number, name and problem of the first rows without a prediction. most: of them."""
        problems = enumerate(self.source.table["problem"].to_pylist())
        rejected = [(self.first + at + 1, self.names[at], problem) for at, problem in problems if problem is not None]
        return rejected[:most]


def find_sequences(names: list[str], columns: Columns) -> Input:
    """Resolve the input as `predict` does; the names in FASTA headers are read. Raises UserError as it does."""
    source = find_prediction_input(names, columns, header_names=False)
    if source.layout is None or source.layout.kind != "fasta":
        return source
    if names != [STANDARD_INPUT]:
        return find_prediction_input(names, columns, header_names=True)
    return replace(source, layout=replace(source.layout, name_field=1))  # standard input can be read only once


def read_sequences(source: Input, assay: Assay, rows: int) -> Generator[MutantPart]:
    """Read promoters in parts of `rows` rows. Raises UserError for an unreadable input."""
    for part in read_parts(source, assay, rows):
        names = part.table.column_names
        table = _refuse_empty(part.table, names.index("problem"), [names.index("repaired")], assay)
        titles = table["name"].to_pylist() if "name" in names else [""] * len(part)
        sides = [{"": promoter} for promoter in table["repaired"].to_pylist()]
        yield _make_part(Part(part.first, table), table["sequence"].combine_chunks(), titles, sides, assay)


def read_variants(reader: variant_rows.VariantReader, rows: int, name: int) -> Generator[MutantPart]:
    """Read variants in parts of `rows` rows. name: number of the column of names, from 1; 0 for none.

    Raises UserError for an unreadable input.
    """
    assay = reader.assay
    for part in reader.read(rows):
        count = part.table.num_columns
        places = [count + variant_rows.REFERENCE, count + variant_rows.ALTERNATIVE]
        part = replace(part, table=_refuse_empty(part.table, count + variant_rows.PROBLEM, places, assay))
        pairs = zip(*(part.table.column(place).to_pylist() for place in places), strict=True)
        sides = [{REFERENCE: reference, ALTERNATIVE: alternative} for reference, alternative in pairs]
        titles = _cells(part.kept, name) if name else [""] * len(part)
        written = pa.array(_cells(part.kept, reader.layout.main_sequence), pa.string())
        yield _make_part(part.problem_part(), written, titles, sides, assay)


def _cells(table: pa.Table, number: int) -> list[str]:
    return [cell for chunk in table.column(number - 1).chunks for cell in as_texts(chunk)]


def _refuse_empty(table: pa.Table, problem: int, sequences: Sequence[int], assay: Assay) -> pa.Table:
    """Give a problem to the valid rows without an insert, which has no bases to replace. Arguments: columns, from 0."""
    adapters = len(assay.left_adapter) + len(assay.right_adapter)
    column = table.column(problem)
    for place in sequences:
        is_empty = pc.less_equal(pc.binary_length(table.column(place)), adapters)
        column = pc.if_else(pc.and_kleene(column.is_null(), is_empty), NO_INSERT, column)
    return table.set_column(problem, table.column_names[problem], column)


def _make_part(
    source: Part, written: pa.Array, names: Sequence[str], sides: Sequence[dict[str, str]], assay: Assay
) -> MutantPart:
    is_valid = source.table["problem"].is_null().to_pylist()
    rows = [
        RowToExplain(source.first + place + 1, names[place], sides[place])
        for place, valid in enumerate(is_valid)
        if valid
    ]
    sequences = pa.array([*_all_sequences(rows, assay)], pa.string())
    table = pa.table({"repaired": sequences, "problem": pa.nulls(len(sequences), pa.string())})
    return MutantPart(source.first, table, rows=rows, source=source, written=written, names=names)


def _all_sequences(rows: Sequence[RowToExplain], assay: Assay) -> Iterator[str]:
    for row in rows:
        for promoter in row.sides.values():
            yield promoter
            yield from list_mutants(promoter, assay)
