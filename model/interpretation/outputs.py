"""Output files of `explain`: tables are written as the rows arrive, pages and figures of the first rows at the end."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from model.interpretation.explained import ExplainedRow
from model.prediction.row_writers import GROUP_ROWS, LINE_BREAKERS
from pipeline.errors import UserError
from pipeline.io.atomic import expect_folder, new_file

TABLE_SUFFIXES, FIGURE_SUFFIXES = (".tsv", ".parquet"), (".svg", ".png")
SUFFIXES = (".html", ".svg", ".tsv", ".parquet", ".png")
MAX_FIGURES = 20
"""Figures of a page or picture, one per row and label; the tables have all rows."""


def check_outputs(outputs: Sequence[Path], motifs: Path | None = None) -> None:
    """Raise UserError for an output of another suffix, in a folder that does not exist, or that appears twice.

    motifs: an input file, which is refused as an output.
    """
    for output in outputs:
        if output.suffix not in SUFFIXES:
            raise UserError(f"{output}: expected a name ending in {', '.join(SUFFIXES)}")
        expect_folder(output)
        if output.is_dir():
            raise UserError(f"{output}: is a folder; expected the name of a file")
        if motifs is not None and output.resolve() == motifs.resolve():
            raise UserError(f"{output}: is the file of motifs, too; fix: another output, -o NAME")
    if len({output.resolve() for output in outputs}) < len(outputs):
        raise UserError("-o: the same file appears twice; expected each output once")


def has_table(outputs: Sequence[Path]) -> bool:
    """Whether one of the outputs is a table, so that all rows are needed."""
    return any(output.suffix in TABLE_SUFFIXES for output in outputs)


class _TsvWriter:
    """Writer of tables to a .tsv file, with a header line. Numbers have nine significant digits, as float32 needs."""

    def __init__(self, file: Path) -> None:
        self._file = file.open("w", encoding="utf-8")
        self._has_header = False

    def close(self) -> None:
        self._file.close()

    def add(self, table: pa.Table) -> None:
        lines = [] if self._has_header else [table.column_names]
        self._has_header = True
        lines += zip(*([_text(cell) for cell in column.to_pylist()] for column in table.columns), strict=True)
        self._file.writelines("\t".join(line) + "\n" for line in lines)


def _text(cell: float | str) -> str:
    return f"{cell:.9g}" if isinstance(cell, float) else LINE_BREAKERS.sub(" ", str(cell))


class _ParquetWriter:
    """Writer of tables to a .parquet file, in row groups of at least GROUP_ROWS rows."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._tables: list[pa.Table] = []
        self._writer: pq.ParquetWriter | None = None

    def close(self) -> None:
        if self._tables:
            self._flush()
        if self._writer is not None:
            self._writer.close()

    def add(self, table: pa.Table) -> None:
        self._tables.append(table)
        if sum(map(len, self._tables)) >= GROUP_ROWS:
            self._flush()

    def _flush(self) -> None:
        group = pa.concat_tables(self._tables)
        self._writer = self._writer or pq.ParquetWriter(self._file, group.schema)
        self._writer.write_table(group)
        self._tables.clear()


class ExplainWriter:
    """Writer of explained rows to open outputs.

    pages: temporary paths of the outputs that are drawn at the end. drawn: the first rows, which are drawn.
    """

    def __init__(
        self,
        tables: Sequence[_TsvWriter | _ParquetWriter],
        pages: Sequence[Path],
        several_labels: bool,
        are_named: bool,
    ) -> None:
        self.drawn: list[ExplainedRow] = []
        self._tables, self._pages = tables, pages
        self._several_labels, self._are_named = several_labels, are_named

    @property
    def is_full(self) -> bool:
        """Whether no further row is drawn."""
        return bool(self.drawn) and (len(self.drawn) + 1) * len(self.drawn[0].labels) > MAX_FIGURES

    def add(self, row: ExplainedRow) -> None:
        """Write a row to all tables, and keep it if it is among those that are drawn."""
        if self._tables:
            table = row.table(self._several_labels, self._are_named)
            for writer in self._tables:
                writer.add(table)
        if self._pages and not self.is_full:
            self.drawn.append(row)

    def draw(self, render_page: Callable[[], str]) -> None:
        """Write the pages and figures of the drawn rows. render_page: returns the HTML page."""
        for page in self._pages:
            if page.suffix == ".html":
                page.write_text(render_page(), encoding="utf-8")
                continue
            from model.interpretation.figures import write_png_file, write_svg_file  # loads matplotlib

            write = write_svg_file if page.suffix == ".svg" else write_png_file
            write(page, self.drawn, self.drawn[0].labels)


@contextmanager
def open_outputs(outputs: Sequence[Path], several_labels: bool, are_named: bool) -> Iterator[ExplainWriter]:
    """Open outputs; the files appear atomically at the end of the block.

    several_labels: whether tables name the label; are_named: whether rows have names.
    """
    with ExitStack() as stack:
        files = [stack.enter_context(new_file(output)) for output in outputs]
        tables: list[_TsvWriter | _ParquetWriter] = [
            _TsvWriter(file) if file.suffix == ".tsv" else _ParquetWriter(file)
            for file in files
            if file.suffix in TABLE_SUFFIXES
        ]
        for table in tables:
            stack.callback(table.close)
        pages = [file for file in files if file.suffix not in TABLE_SUFFIXES]
        yield ExplainWriter(tables, pages, several_labels, are_named)
