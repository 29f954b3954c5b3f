"""The lines at the head of a table, its delimiter and its quotes: no label or sequence comes from another column."""

import pytest

from pipeline.dataset.input.files import find_input
from pipeline.dataset.input.format import Columns
from pipeline.errors import UserError
from tests.pipeline.dataset.input.reading import read_rows, valid_rows
from tests.pipeline.dataset.toy_dataset import write


def layout_of(tmp_path, text, columns=None):
    return find_input([write(tmp_path / "a.txt", text)], columns).layout


DNA = ["ACGTACGTACGTACGTACGT", "CCGTACGTACGTACGTACGT", "GCGTACGTACGTACGTACGT"]
LABELS = [-1.81, 0.004, 1.983]
ROW_NAMES = [("x", *row) for row in zip(DNA, LABELS, strict=True)]
R_TABLES = {
    # Column 3 lies in the range of labels: without the row names it was the label.
    "tabs": "oligo\tdna\texpression\n"
    + "".join(f"{i}\t{s}\t{9 + i}.85\t{e}\n" for i, (_, s, e) in enumerate(ROW_NAMES)),
    "quotes": '"note" "dna" "expression"\n'
    + "".join(f'"r{i}" "a b" "{s}" {e}\n' for i, (_, s, e) in enumerate(ROW_NAMES)),
    "two names": "dna,expression\n" + "".join(f"row{i},{s},{e}\n" for i, (_, s, e) in enumerate(ROW_NAMES)),
    "a comment": "# R\nn\tdna\texpression\n" + "".join(f"{i}\tx\t{s}\t{e}\n" for i, (_, s, e) in enumerate(ROW_NAMES)),
}


@pytest.mark.parametrize("name", R_TABLES)
def test_the_row_names_of_r_shift_no_column(tmp_path, name):
    file = write(tmp_path / "a.txt", R_TABLES[name])
    assert valid_rows([file]) == list(zip(DNA, LABELS, strict=True))
    assert find_input([file]).layout.row_names


@pytest.mark.parametrize(
    ("text", "lengths"),
    [
        # A quote after a space parts nothing: 6" would be the label.
        (f'sequence,note,expression\n{DNA[0]}, "5,6",3.5\n', "3 columns, the rows have 4"),
        # A delimiter at the end of each row.
        ("".join(["id\tsequence\texpression\n", *(f"{i}\t{s}\t{i}.5\t\n" for i, s in enumerate(DNA))]), "3 .* have 4"),
        ("".join(["sequence\texpression\n", *(f"{s}\t{i}.5\t7\n" for i, s in enumerate(DNA))]), "2 .* have 3"),
        ("".join(["a\tb\tsequence\texpression\n", *(f"{s}\t{i}.5\n" for i, s in enumerate(DNA))]), "4 .* have 2"),
        ("".join(["sequence\texpression\n", *(f"{i}\tx\t{s}\t{i}.5\n" for i, s in enumerate(DNA))]), "2 .* have 4"),
        # Duplicate names are not row names.
        ("".join(["sequence\texpression\n", *(f"x\t{s}\t{i}.5\n" for i, s in enumerate(DNA))]), "2 .* have 3"),
    ],
)
def test_other_widths_of_header_and_rows_are_refused(tmp_path, text, lengths):
    with pytest.raises(UserError, match=f"the header line has {lengths}; expected as many"):
        layout_of(tmp_path, text)


PREAMBLES = {
    "two comments": "# table\n# version 2\nsequence\tlog2FC\n",
    "a blank line": "# table\n\n\nsequence\tlog2FC\n",
    "names in the comment": "# table\n#sequence\tlog2FC\n",
    "names after a space": "## table\n# sequence\tlog2FC\n",
    "a comment with delimiters": "# a\tb\nsequence\tlog2FC\n",
}


@pytest.mark.parametrize("name", PREAMBLES)
def test_comment_lines_before_the_header_are_skipped(tmp_path, name):
    file = write(tmp_path / "a.tsv", PREAMBLES[name] + "".join(f"{s}\t{i}.5\n" for i, s in enumerate(DNA)))
    assert valid_rows([file], Columns(expression="log2FC")) == [(sequence, i + 0.5) for i, sequence in enumerate(DNA)]
    lines = PREAMBLES[name].count("\n")
    assert [line for line, *_ in read_rows([file], Columns(expression="log2FC"))] == [lines + i for i in (1, 2, 3)]


def test_comment_lines_of_several_files_and_of_rows(tmp_path):
    body = "".join(f"{s}\t{i}.5\n" for i, s in enumerate(DNA))
    files = [write(tmp_path / f"{n}.tsv", "# x\n" * n + body) for n in range(3)]
    assert valid_rows(files) == [(sequence, i + 0.5) for i, sequence in enumerate(DNA)] * 3
    assert find_input(files).layout.comment_lines == 3
    # Lines between rows are rows, and names that all begin with # are names.
    assert [row[3] for row in read_rows([write(tmp_path / "in.tsv", f"{body}# x\n{body}")])][3] is not None
    names = "".join(f"#{i}\t{s}\t{i}.5\n" for i, s in enumerate(DNA))
    assert valid_rows([write(tmp_path / "names.tsv", names)]) == [(sequence, i + 0.5) for i, sequence in enumerate(DNA)]


def test_tables_with_spaces_between_columns(tmp_path):
    expected = [(sequence, i + 0.5) for i, sequence in enumerate(DNA)]
    rows = [f"{s} {i}.5" for i, s in enumerate(DNA)]
    assert valid_rows([write(tmp_path / "a.txt", "\n".join(rows))]) == expected
    assert valid_rows([write(tmp_path / "b.txt", "\n".join(["sequence expression", *rows]))]) == expected
    assert valid_rows([write(tmp_path / "c.txt", "\n".join(f"p{i} {row}" for i, row in enumerate(rows)))]) == expected
    for text in ("\n".join(row.replace(" ", "   ") for row in rows), "\n".join(f" {row}" for row in rows)):
        with pytest.raises(UserError, match=r"columns aligned by several spaces; .* fix: awk"):
            layout_of(tmp_path, text)
    # Sequences in blocks are one column.
    for block in (3, 10):
        blocks = ["".join(s[i : i + block] + " " for i in range(0, 20, block)).strip() for s in DNA]
        layout = find_input([write(tmp_path / "d.txt", "\n".join(blocks))], labelled=False).layout
        assert (layout.delimiter, layout.columns) == ("\t", 1)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{},"a, b",3.5', 3.5),
        ('{},"a ""b"", c","3.5"', 3.5),
        ('{}, x, "3.5"', 3.5),
        ('{},5" pipe,3.5', 3.5),
        ('{},"a" b,3.5', "quotes"),
        ('{},x,"3"5', "quotes"),
        ('{},x,3.5"', "no_number"),
        ('{},x,"3.5', "no_number"),
        ('{}, "5,6",3.5', "columns"),
    ],
)
@pytest.mark.parametrize("late", [False, True])
def test_quoted_fields_and_quotes_inside_fields(tmp_path, line, expected, late):
    """late: quotes begin after the lines from which the layout is inferred."""
    before = f"{DNA[1]},x,1.5\n" * (1100 if late else 3)
    *_, row = read_rows([write(tmp_path / "a.csv", f"sequence,note,expression\n{before}{line.format(DNA[0])}\n")])
    assert row[1:] == (DNA[0], expected, None) if isinstance(expected, float) else row[3] == expected
