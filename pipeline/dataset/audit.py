"""Checks of a dataset during its build: of the requested sizes, and of the build's own statements (sql/audits)."""

from collections.abc import Mapping

import duckdb

from pipeline.config.schema import Assay
from pipeline.dataset.database import dataset_info, row_count, rows_of, statement
from pipeline.dataset.hints import fix_of_all_rows
from pipeline.dataset.input.cells import is_long_sequence, is_number
from pipeline.dataset.input.columns import SEQUENCE_NAMES
from pipeline.dataset.input.files import Input
from pipeline.errors import UserError
from pipeline.paths import SQL
from pipeline.runtime.text import shorten


def audit(connection: duckdb.DuckDBPyConnection, marks: Mapping[str, str] | None = None) -> None:
    """Run every statement of sql/audits. A returned row is a bug of the build: raises UserError.

    marks: SQL for the marks of the statements.
    """
    for path in sorted((SQL / "audits").glob("*.sql")):
        failures = rows_of(connection, statement(f"audits/{path.name}", marks))[:3]
        if failures:
            raise UserError(
                f"audit {path.name}: expected no rows, got {failures}; no dataset was made; fix: report this"
            )


def check_promoters(connection: duckdb.DuckDBPyConnection, assay: Assay, source: Input) -> None:
    """Raise UserError if no row is valid. The message shows a reject of the most frequent reason, and its hint."""
    if row_count(connection, "promoters"):
        return
    counts = rows_of(
        connection, "select reason, count(*) from rejects group by reason order by count(*) desc, min(line) limit 1"
    )
    if not counts:
        raise UserError(f"{', '.join(source.files)}: no rows")
    ((reason, count),) = counts
    file, line, text = rows_of(
        connection, "select file, line, text from rejects where reason = ? order by file, line limit 1", [reason]
    )[0]
    fix = fix_of_all_rows(connection, reason, source, assay)
    adapters = f"between {assay.left_adapter} and {assay.right_adapter} " if assay.left_adapter else ""
    raise UserError(
        f"{file}:{line}: {reason}: {shorten(text or '', 200)!r}; "
        f"0 of {row_count(connection, 'rejects'):,} rows are valid; {count:,} are rejected for this reason; "
        f"expected inserts of bases ACGTN {adapters}(section assay; "
        "presets of other assays: promoter-bert init, such as promoter-bert init --assay mpra-generic)"
        f"{f'; fix: {fix}' if fix else ''}"
    )


def check_sizes(connection: duckdb.DuckDBPyConnection) -> None:
    """Raise UserError if splits are larger than the rows that they are taken from."""
    info = dataset_info(connection)
    if info.cut is None:
        return
    held_out = info.finetune_valid_rows + info.finetune_test_rows
    if held_out >= info.promoters:
        raise UserError(
            f"dataset.finetune_valid + dataset.finetune_test = {held_out:,} rows, but there are only "
            f"{info.promoters:,} {info.sequence_name}s; fix: fractions (sizes below 1), add "
            "dataset.finetune_valid=0.1 dataset.finetune_test=0.1"
        )
    if info.finetune_train_rows > info.promoters - held_out:
        raise UserError(
            f"dataset.finetune_train = {info.finetune_train_rows:,} rows, but only {info.promoters - held_out:,} are "
            f"not held out; fix: dataset.finetune_train=all, or at most {info.promoters - held_out}"
        )
    if info.pretrain_valid_rows >= info.pretrain_rows:
        raise UserError(
            f"dataset.pretrain_valid = {info.pretrain_valid_rows:,} rows, but only {info.pretrain_rows:,} "
            f"{info.sequence_name}s reach the threshold; fix: a fraction, such as dataset.pretrain_valid=0.05"
        )


def check_header_lines(connection: duckdb.DuckDBPyConnection, source: Input) -> None:
    """Raise UserError for a rejected line that names the columns in another order, as in two tables joined by cat."""
    layout = source.layout
    if layout is None or layout.kind == "fasta":
        return
    names = {*SEQUENCE_NAMES, layout.sequence_name.casefold()} - {""}
    rejects = connection.execute(
        "select file, line, text from rejects "
        "where len(list_filter($names, lambda name: contains(lower(text), name))) > 0 order by file, line",
        {"names": sorted(names)},
    )
    for file, line, text in iter(rejects.fetchone, None):
        cells = [cell.strip().strip('"').casefold() for cell in text.split(layout.delimiter)]
        if names.isdisjoint(cells) or any(is_number(cell) or is_long_sequence(cell) for cell in cells):
            continue
        fields = {layout.sequence_field: names}
        if source.labelled and layout.expression_field and layout.expression_name:
            fields[layout.expression_field] = {layout.expression_name.casefold()}
        if any(len(cells) < field or cells[field - 1] not in allowed for field, allowed in fields.items()):
            raise UserError(
                f"{file}:{line}: another header line inside the file: {shorten(text, 200)!r}; fix: split the file "
                "there, so that each table is a file"
            )
