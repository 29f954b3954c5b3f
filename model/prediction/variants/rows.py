"""Read a table of variants in parts: kept columns, reference and alternative sequences, and the problem of each row."""

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field

import duckdb
import pyarrow as pa

from model.prediction.inputs import Part
from model.prediction.tables import TableInput, as_texts, read_batches
from model.prediction.variants.alleles import MISMATCH, VariantError, apply_variants, is_allele_at, parse_variants
from model.prediction.variants.columns import VariantLayout
from model.prediction.variants.pairs import check_pairs
from pipeline.config.schema import Assay
from pipeline.dataset.input.view import define_rules
from pipeline.io.arrow import rebatch
from pipeline.runtime.text import format_count

REFERENCE, ALTERNATIVE, PROBLEM, SEQUENCE, PLACE = -5, -4, -3, -2, -1
"""Columns behind the kept ones: repaired sequences, then the problem with its sequence as written, and its place."""
ADDED = ("reference", "alternative", "problem", "sequence", "place")


@dataclass(frozen=True)
class VariantRows:
    """Successive rows of a table of variants. first: number of the first row, from 0; table: kept columns, ADDED."""

    first: int
    table: pa.Table

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @property
    def kept(self) -> pa.Table:
        """The columns of the input."""
        return self.table.select(range(self.table.num_columns - len(ADDED)))

    @property
    def problem(self) -> pa.ChunkedArray:
        """Why a row has no prediction; null for a valid row."""
        return self.table.column(self.table.num_columns + PROBLEM)

    def part_of(self, column: int) -> "SequencePart":
        """Return the reference or alternative sequences as a part to predict. column: REFERENCE or ALTERNATIVE."""
        sequences = self.table.column(self.table.num_columns + column)
        return SequencePart(self.first, pa.table({"repaired": sequences, "problem": self.problem}), rows=self)

    def problem_part(self) -> Part:
        """Return the problems as a part, for ProblemReport: columns repaired, problem, sequence and place."""
        count = self.table.num_columns
        columns = {name: self.table.column(count + at) for name, at in zip(ADDED, range(-len(ADDED), 0), strict=True)}
        return Part(self.first, pa.table({"repaired": columns.pop("reference"), **columns}))


@dataclass(frozen=True, kw_only=True)
class SequencePart(Part):
    """The sequences of one side of variants. rows: where they are from."""

    rows: VariantRows


@dataclass
class VariantReader:
    """Reader of the rows of a table of variants.

    mismatches: rows whose reference allele is not at its position; shifted: those of them in which it is one base
    beside, which is where it would be if positions counted from the other number.
    """

    table: TableInput
    layout: VariantLayout
    assay: Assay
    mismatches: int = field(default=0, init=False)
    shifted: int = field(default=0, init=False)

    def read(self, rows: int) -> Generator[VariantRows]:
        """Read the table in parts of `rows` rows, the last one shorter. Raises UserError for an unreadable input."""
        first = 0
        for table in rebatch(self._prepared_batches(), rows):
            yield VariantRows(first, table)
            first += table.num_rows

    def suggest_position(self) -> str:
        """Suggest the other numbering of positions if it fits most alleles that do not match; else an empty text."""
        if 2 * self.shifted <= self.mismatches:
            return ""
        other = 1 - self.layout.first_position
        return (
            f"{self.shifted:,} of {format_count(self.mismatches, 'allele')} that do not match would, if positions "
            f"counted from {other}; fix: --first-position {other}"
        )

    def _prepared_batches(self) -> Iterator[pa.RecordBatch]:
        with duckdb.connect() as connection:
            define_rules(connection, self.assay)
            for batch in read_batches(self.table, self.assay):
                yield self._prepare(connection, batch)

    def _prepare(self, connection: duckdb.DuckDBPyConnection, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Replace the last column of a batch, the problem of the line, by the columns ADDED."""
        kept = batch.select(range(batch.num_columns - 1))
        references = self._texts(kept, self.layout.main_sequence)
        pairs = check_pairs(connection, references, self._alternatives(kept, references))
        lines = batch.column(batch.num_columns - 1).to_pylist()
        problems = [pair if line is None else line for line, pair in zip(lines, pairs.problems, strict=True)]
        texts = (pa.array(values, pa.string()) for values in (problems, pairs.faults, pairs.places))
        added = [pairs.references, pairs.alternatives, *texts]
        return pa.RecordBatch.from_arrays([*kept.columns, *added], names=[*kept.schema.names, *ADDED])

    def _texts(self, kept: pa.RecordBatch, number: int) -> list[str]:
        return as_texts(kept.column(number - 1))

    def _alternatives(self, kept: pa.RecordBatch, references: list[str]) -> list[str | VariantError]:
        """Return the alternative sequence of each row, or the error if its variants cannot be applied."""
        layout = self.layout
        if not layout.position:
            return list(self._texts(kept, layout.alternative))
        cells = (self._texts(kept, number) for number in (layout.position, layout.reference, layout.alternative))
        return [self._apply(*row) for row in zip(references, *cells, strict=True)]

    def _apply(self, sequence: str, position: str, reference: str, alternative: str) -> str | VariantError:
        first = self.layout.first_position
        try:
            variants = parse_variants(position, reference, alternative, first)
            return apply_variants(sequence, variants, first)
        except VariantError as error:
            if error.reason == MISMATCH:
                self.mismatches += 1
                step = 2 * first - 1  # 1 if positions count from 1, so that the base after it is tried
                self.shifted += all(is_allele_at(sequence, v.start + step, v.reference) for v in variants)
            return error
