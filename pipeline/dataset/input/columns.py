"""Choose the columns of sequence, label and name in a table: by option, by name, or by the cells of its first rows."""

import re
import shlex
from dataclasses import dataclass

from pipeline.dataset.input.cells import (
    SHORT_BASES,
    Table,
    bases,
    is_decimal_comma,
    is_dna,
    is_missing,
    is_no_number,
    is_number,
    is_row_index,
    is_sequence,
    is_short_dna,
)
from pipeline.errors import UserError
from pipeline.paths import suggest
from pipeline.runtime.text import format_count

SEQUENCE_NAMES = ("sequence", "seq", "promoter", "promoter_sequence")
LABEL_NAMES = ("expression", "mean_expression", "exp", "activity", "measurement")
"""A column of this name is the label, also beside other columns of numbers."""
WEAK_LABEL_NAMES = ("label", "value", "target", "score")
"""Names that labels have, but other columns of numbers, too: never chosen over others."""
EXPRESSION_NAMES = LABEL_NAMES + WEAK_LABEL_NAMES
AMBIGUOUS_NAME = "exp"
"""Expression, or the number of an experiment: not chosen over other numbers that could be labels."""

OMIT_LABELS = ", or --no-labels"
_NEVER_LABELS = re.compile(
    r"(.*[^a-z])?(chrom|tx|cds|thick)?(start|end|stop|pos|position|strand|chr|chrom|chromosome|"
    r"counts?|reads|umis?|index|idx|row|rownames?)[_.]?\d*|(row|n)_?(id|names?|counts?|reads|umis?|obs|barcodes?)"
)
"""Names of coordinates, counts and indices, in lower case."""


@dataclass(frozen=True)
class Columns:
    """Columns requested by their name in a header line or Parquet file, or by their number from 1.

    expression: the column of labels, or several of them. In FASTA it is a key of the headers, or the number of a header
    field. name: the column that is copied to the predictions. unlabelled: the rows have no labels, whatever numbers
    they hold. by_name: column sequence holds names of sequences, which are in files of their own.
    """

    sequence: str | None = None
    expression: str | tuple[str, ...] | None = None
    name: str | None = None
    unlabelled: bool = False
    by_name: bool = False

    @property
    def labels(self) -> tuple[str, ...]:
        """Return the requested columns of labels; empty if the column is to be detected."""
        if self.expression is None:
            return ()
        return (self.expression,) if isinstance(self.expression, str) else self.expression


@dataclass(frozen=True)
class Choice:
    """The numbers of the chosen columns, from 1; 0 for none. expression: the first of the labels."""

    sequence: int
    labels: tuple[int, ...]
    name: int

    @property
    def expression(self) -> int:
        """Return the first column of labels; 0 without labels."""
        return self.labels[0] if self.labels else 0


def choose_columns(table: Table, columns: Columns, labelled: bool, optional: bool = True) -> Choice:
    """Choose the columns of a table. labelled: whether labels are read; optional: whether --no-labels can omit them.

    Raises UserError if a requested column does not exist or has the wrong type, or if the choice is ambiguous.
    """
    if columns.by_name and columns.sequence is not None:
        sequence = find_field(table, columns.sequence)
    else:
        sequence = _sequence_field(table, columns.sequence)
    requested: tuple[str | None, ...] = (columns.labels or (None,)) if labelled else ()
    labels = tuple(filter(None, (_label_field(table, name, sequence, optional) for name in requested)))
    if twice := [field for place, field in enumerate(labels) if field in labels[:place]]:
        raise UserError(f"{table.file}: {table.title(twice[0])} is named twice as a label; fix: name each label once")
    return Choice(sequence, labels, find_field(table, columns.name) if columns.name else 0)


def find_field(table: Table, requested: str, fix: str = "") -> int:
    """Find a column by its name as written, by its name in any case, or by its number. fix: added to the error."""
    for name in (str, str.casefold):
        fields = [field for field in table.fields if name(table.name(field)) == name(requested)]
        if len(fields) > 1:
            raise UserError(f"{table.file}: {len(fields)} columns are named {requested}; fix: choose one by its number")
        if fields:
            return fields[0]
    if requested.isdecimal() and int(requested) in table.fields:
        return int(requested)
    columns = ", ".join(table.header) if table.header else f"{table.width} columns and no header line"
    raise UserError(f"{table.file}: no column {requested}; it has {columns}{fix or suggest(requested, table.header)}")


def _sequence_field(table: Table, requested: str | None) -> int:
    """Find the column of sequences: the requested column, a column with a known name, or the column of DNA.

    Of several columns of DNA it is the one that is much longer than the others, which are barcodes.
    """
    if requested is not None:
        with_dna = [field for field in table.fields if table.mean(field, is_sequence) > 0.5]
        name = shlex.quote(table.option(with_dna[0])) if len(with_dna) == 1 else ""
        fix = f"; fix: --sequence-column {name}; in build also dataset.sequence_column={name}" if name else ""
        field = find_field(table, requested, fix)
    else:
        known = [field for field in table.fields if table.name(field).lower() in SEQUENCE_NAMES]
        with_dna = [field for field in known if table.mean(field, is_sequence) > 0.5]
        known = with_dna or known
        if len(known) == 1 and table.mean(known[0], is_short_dna) > 0.5:  # barcodes, beside promoters of another name
            known += [field for field in table.fields if field not in known and _holds_promoters(table, field)]
        if len(known) > 1:
            raise _ambiguous_sequence(table, known)
        if not known:
            return _dna_field(table)
        field = known[0]
    if any(not is_missing(cell) for cell in table.cells(field)) and not table.mean(field, is_dna):
        others = [other for other in table.fields if table.mean(other, is_sequence) > 0.5]
        fix = f"; fix: --sequence-column {shlex.quote(table.option(others[0]))}" if len(others) == 1 else ""
        raise UserError(f"{table.file}: {table.title(field)} is not DNA; got {table.example(field)}{fix}")
    return field


def _holds_promoters(table: Table, field: int) -> bool:
    """Whether at least half of the cells that are not missing are DNA, and long enough for promoters."""
    cells = [cell for cell in table.cells(field) if not is_missing(cell)]
    return 2 * sum(is_sequence(cell) and not is_short_dna(cell) for cell in cells) > len(cells)


def _dna_field(table: Table) -> int:
    """Find the column of DNA. Raises UserError for several of similar length, and for barcodes or alleles only."""
    shares = {field: table.mean(field, is_sequence) for field in table.fields}
    lengths = {field: table.mean(field, len) for field in shares}
    short = [field for field in shares if table.mean(field, is_short_dna) > 0.5]
    dna = [field for field, share in shares.items() if share > 0.5 and field not in short]
    if dna:
        longest = max(lengths[field] for field in dna)
        similar = [field for field in dna if lengths[field] > longest / 2]
        if len(similar) > 1:
            raise _ambiguous_sequence(table, similar)
        return similar[0]
    if short:
        columns = ", ".join(f"{table.title(field)} ({_typical_bases(table, field)})" for field in short)
        raise UserError(
            f"{table.file}: no column holds promoters; got {columns}; expected sequences of {SHORT_BASES} bases or "
            f"more; fix: add them to the table, or name the column: --sequence-column "
            f"{shlex.quote(table.option(short[0]))}"
        )
    if table.header and table.rows and not any(shares.values()):
        names = ", ".join(table.header)
        raise UserError(f"{table.file}: no column holds sequences; got columns {names}; fix: --sequence-column NAME")
    return max(shares, key=lambda field: (shares[field], lengths[field]))


def _typical_bases(table: Table, field: int) -> str:
    lengths = sorted(bases(cell) for cell in table.cells(field) if is_dna(cell))
    return f"most of {format_count(lengths[len(lengths) // 2], 'base')}"


def _ambiguous_sequence(table: Table, fields: list[int]) -> UserError:
    names = ", ".join(f"{field} ({table.name(field)})" if table.header else str(field) for field in fields)
    return UserError(f"{table.file}: ambiguous columns {names}; fix: choose one: --sequence-column NUMBER")


def _label_field(table: Table, requested: str | None, sequence: int, optional: bool) -> int:
    """Find the column of labels, 0 if there is none. Raises UserError if it is ambiguous or holds no numbers."""
    if requested is not None:
        field = find_field(table, requested)
        if field == sequence:
            raise UserError(f"{table.file}: {table.title(field)} cannot be both the sequence and the label")
    else:
        field = _find_label(table, [field for field in table.fields if field != sequence], optional)
    if field and table.mean(field, is_decimal_comma) > 0:
        cells = table.cells(field)
        place = next(at for at, cell in enumerate(cells) if is_decimal_comma(cell))
        raise UserError(
            f"{table.file}: decimal comma in {table.title(field)}, row {place + 1:,} of the table: {cells[place]!r}; "
            "expected a decimal point; fix: save the table with decimal points, or convert it, in pandas by "
            "read_csv(..., decimal=',')"
        )
    is_named = requested is not None or table.name(field).lower() in EXPRESSION_NAMES
    if field and is_named:
        _check_numbers(table, field, optional)
    return field


def _find_label(table: Table, others: list[int], optional: bool) -> int:
    """Find the label by name, or as the only column of numbers. Returns 0 if no column can be the label."""
    numbers = [field for field in others if _holds_numbers(table, field) and not _is_index(table, field)]
    candidates = [field for field in numbers if not _NEVER_LABELS.fullmatch(table.name(field).lower())]
    named = [field for field in others if table.name(field).lower() in LABEL_NAMES]
    with_numbers = [field for field in named if field in numbers]
    if [table.name(field).lower() for field in with_numbers] == [AMBIGUOUS_NAME] and len(candidates) > 1:
        raise _ambiguous_label(table, candidates, optional, is_likely=True)
    if len(with_numbers) == 1 or (len(named) == 1 and not candidates):
        return (with_numbers or named)[0]
    if len(numbers) == 1 and numbers == candidates and not named:
        return numbers[0]
    if len(candidates) == 1 and not named and table.name(candidates[0]).lower() not in WEAK_LABEL_NAMES:
        return candidates[0]  # beside coordinates and counts
    if numbers or named:
        fields = named + [field for field in candidates or numbers if field not in named]
        raise _ambiguous_label(table, fields, optional, is_likely=bool(candidates))
    return _label_without_numbers(table, others, optional)


def _holds_numbers(table: Table, field: int) -> bool:
    """Whether a column holds numbers, however many of them are missing."""
    values = [cell for cell in table.cells(field) if not is_missing(cell)]
    return sum(map(is_number, values)) > 0.2 * len(values) or field in table.number_fields


def _label_without_numbers(table: Table, others: list[int], optional: bool) -> int:
    """Find the column whose labels are missing or invalid; 0 if there is none."""
    for field in others:
        is_weak = table.name(field).lower() in WEAK_LABEL_NAMES
        if is_weak or table.mean(field, is_decimal_comma) > 0.5:
            return field
        if table.mean(field, is_no_number) > 0.5:
            _check_numbers(table, field, optional)
    missing = [field for field in others if table.mean(field, is_missing) > 0.5 and table.cells(field)]
    # The challenge's own form has two columns and no header line: an invalid label is a reject there.
    is_plain = not table.header and table.width == 2
    return (missing or (others if is_plain else []) or [0])[0]


def _is_index(table: Table, field: int) -> bool:
    """Return whether a column only counts the rows, and has no name of a label."""
    name = table.name(field).lower()
    is_unnamed = bool(table.header) and (not name or name.startswith("unnamed: "))
    return name not in EXPRESSION_NAMES and (is_unnamed or is_row_index(table.cells(field)))


def _check_numbers(table: Table, field: int, optional: bool) -> None:
    """Raise UserError for a column of labels with values, none of which is a number."""
    values = [cell for cell in table.cells(field) if not is_missing(cell)]
    if values and not any(map(is_number, values)):
        raise UserError(
            f"{table.file}: {table.title(field)} holds no numbers; expected one number per row as the label, got "
            f"{table.example(field)}; fix: --expression-column NAME{OMIT_LABELS if optional else ''}"
        )


def _ambiguous_label(table: Table, fields: list[int], optional: bool, is_likely: bool) -> UserError:
    """Make the error for a table in which several columns of numbers, or none that is likely, could be the label."""
    columns = ", ".join(f"{table.title(field)} ({_number_range(table, field)})" for field in fields)
    # Labels are hardly ever whole numbers; counts and row numbers are.
    numbers = [field for field in fields if table.mean(field, is_number) > 0]
    example = next((field for field in numbers if table.mean(field, str.isdecimal) < 1), (numbers or fields)[0])
    named = f"--expression-column {shlex.quote(table.option(example))}"
    fix = f"name it, such as {named}{OMIT_LABELS if optional else ''}"
    if optional and not is_likely:
        fix = "--no-labels, or --expression-column NAME"
    return UserError(f"{table.file}: ambiguous label column: {columns}; fix: {fix}")


def _number_range(table: Table, field: int) -> str:
    numbers = [float(cell) for cell in table.cells(field) if is_number(cell)]
    if not numbers:
        return "no numbers"
    return f"{format_count(len(numbers), 'number')}, {min(numbers):g} … {max(numbers):g}"
