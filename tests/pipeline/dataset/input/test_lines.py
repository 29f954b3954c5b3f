"""No line is lost, cut or glued: line ends of any kind, long lines, other control characters."""

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.dataset.input import compression
from pipeline.dataset.input.fasta import fasta_entries
from pipeline.dataset.input.lines import first_lines, line_batches, text_blocks
from pipeline.dataset.input.row_count import count_entries, count_lines
from pipeline.errors import UserError
from tests.pipeline.dataset.input.reading import read_rows, valid_rows

S = ["ACGTACGTACGTACGTACGTA", "CCCCACGTACGTACGTACGTC", "GGGGACGTACGTACGTACGTG"]


def pieces(data, size):
    return [data[start : start + size] for start in range(0, len(data), size)]


def lines_of(data, size=7, skip=0):
    return [
        (number, text)
        for numbers, lines in line_batches("x", pieces(data, size), skip)
        for number, text in zip(numbers.to_pylist(), lines.to_pylist(), strict=True)
    ]


def lines_or_refusal(data, size):
    try:
        return lines_of(data, size)
    except UserError as error:
        return str(error).split(": ")[1]


ENDS = st.sampled_from(["\n", "\r\n", "\r", "\r\r\n", "\n\r"])
WORDS = st.sampled_from(["ACGT", "", "AC\tGT", "a b", "é", "\x01", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", '"'])


@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(WORDS, ENDS), max_size=8), WORDS, st.integers(1, 9))
@example([("ACGT", "\r\n"), ("AC", "\r"), ("GT", "\r\n")], "", 3)
@example([("ACGT", "\n"), ("ACGT", "\r")], "", 100)
def test_lines_with_any_line_end_are_exact_or_refused(parts, last, size):
    text = "".join(word + end for word, end in parts) + last
    data = text.encode()
    mixed = len(set(re.findall(r"\r\n|\n|\r(?=.)|\r$", text, re.DOTALL)) - {"\r\n"}) > 1 or (
        re.search(r"\r(?!\n).", text, re.DOTALL) and "\n" in text
    )
    expected = re.split(r"\r\n|\n|\r", text)
    expected = expected[:-1] if expected[-1] == "" else expected
    if (lines := lines_or_refusal(data, size)) == "mixed line ends":
        assert mixed
    else:
        assert lines == list(enumerate(expected, 1))
        assert count_lines(pieces(data, size)) == len(expected)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([">a", ">", "ACGT", "", " >x", "é"]), ENDS), max_size=9), st.integers(1, 9))
def test_entries_are_counted_as_they_are_read(parts, size):
    data = "".join(word + end for word, end in parts).encode()
    try:
        entries = sum(len(entries.line) for entries in fasta_entries("x", pieces(data, size)))
    except UserError:
        return
    assert count_entries(pieces(data, size)) == entries


@pytest.mark.parametrize("skip", [0, 1, 2, 5])
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_skipped_lines_keep_the_numbers_of_the_others(size, skip):
    assert lines_of(b"a\nb\n\nc", size, skip) == [(1, "a"), (2, "b"), (3, ""), (4, "c")][skip:]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        # A lone CR in a file with CRLF, which once swallowed a base.
        (f"{S[0]}\t1\r\n{S[1][:9]}\r{S[1][9:]}\t2\r\n{S[2]}\t3\r\n", 2),
        (f"{S[0]}\t1\n{S[1]}\t2\r{S[2]}\t3\n", 2),
        (f"{S[0]}\t1\r\n{S[1]}\t2\r\r\n{S[2]}\t3\r\n", 2),
        (f"{S[0]}\t1\r{S[1]}\t2\r{S[2]}\t3\n{S[0]}\t4", 3),
    ],
)
def test_mixed_line_ends_are_refused_with_their_line(tmp_path, text, place):
    (tmp_path / "a.tsv").write_bytes(text.encode())
    with pytest.raises(UserError, match=rf"a\.tsv:{place}: mixed line ends"):
        read_rows([tmp_path / "a.tsv"])


@pytest.mark.parametrize("ends", [("\n",) * 3, ("\r\n",) * 3, ("\r",) * 3, ("\n", "\r\n", "\n"), ("\r\n", "\n", "\r")])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_every_kind_of_line_end_gives_the_same_rows(tmp_path, ends, mark):
    rows = [(sequence, float(label)) for label, sequence in enumerate(S)]
    text = "".join(f"{s}\t{e}{end}" for (s, e), end in zip(rows, ends, strict=True))
    (tmp_path / "a.tsv").write_bytes((mark + text).encode())
    assert valid_rows([tmp_path / "a.tsv"]) == rows
    fasta = "".join(f">x expression={e}{end}{s[:5]}{end}{s[5:]}{end}" for (s, e), end in zip(rows, ends, strict=True))
    if len(set(ends) - {"\r\n"}) < 2:
        (tmp_path / "a.fa").write_bytes((mark + fasta).encode())
        assert valid_rows([tmp_path / "a.fa"]) == rows


@pytest.mark.parametrize("place", ["first", "middle", "last"])
@pytest.mark.parametrize("end", ["\n", ""])
def test_long_lines_are_rows(tmp_path, place, end):
    """Lines of 3 and 20 MB: in the DuckDB reader the limit was 2 MB, and a long last line was dropped."""
    rows = [(s, float(label)) for label, s in enumerate(S)]
    long = ("ACGT" * (5_000_000 if place == "last" else 750_000), 7.0)
    rows.insert({"first": 0, "middle": 1, "last": 3}[place], long)
    (tmp_path / "a.tsv").write_text("\n".join(f"{s}\t{e}" for s, e in rows) + end)
    assert valid_rows([tmp_path / "a.tsv"]) == rows
    (tmp_path / "a.fa").write_text("\n".join(f">x activity={e}\n{s}" for s, e in rows) + end)
    assert valid_rows([tmp_path / "a.fa"]) == rows


def test_a_line_that_arrow_cannot_hold_is_refused(monkeypatch):
    monkeypatch.setattr("pipeline.dataset.input.lines.MAX_LINE_BYTES", 20)
    assert [block.data for block in text_blocks("x", [b"ACGT\nAC", b"GT" * 9])] == [
        b"ACGT\n",
        b"ACGTGTGTGTGTGTGTGTGT\n",
    ]
    with pytest.raises(UserError, match="x: a line is longer than 20 bytes"):
        list(text_blocks("x", [b"ACGT\nACG", b"GT" * 9]))
    monkeypatch.setattr("pipeline.dataset.input.fasta.MAX_LINE_BYTES", 20)
    assert sum(len(entries.line) for entries in fasta_entries("x", [b">a\nACGT\nACGT\n"] * 5)) == 5
    with pytest.raises(UserError, match="x: an entry is longer than 20 bytes"):
        list(fasta_entries("x", [b">a\n", *[b"ACGT\n"] * 5]))


@pytest.mark.parametrize(
    "mark", ["\x01", "\x02", "\x0b", "\x0c", "\x1c", "\x1e", "\x85", "\u2028", "\ufffe", "\U0010ffff"]
)
def test_only_line_ends_split_lines(tmp_path, mark):
    text = f"{S[0]}\t3{mark}foo\n{S[1]}\t4\n{S[2][:9]}{mark}{S[2][9:]}\t5\n{S[2]}\t6\tx{mark}y\n{mark}\n"
    (tmp_path / "a.tsv").write_text(text * 3 + f"{S[1]}\t4\n" * 20)
    rows = read_rows([tmp_path / "a.tsv"])
    assert [code is None for *_, code in rows[:5]] == [False, True, False, False, False]
    assert rows[0][3] == "no_number"
    assert {(s, e) for _, s, e, code in rows if not code} == {(S[1], 4.0)}


def test_nul_byte_is_refused_at_any_place(tmp_path, monkeypatch):
    monkeypatch.setattr(compression, "CHUNK_BYTES", 1000)
    for name in ("a.tsv", "a.fa"):
        (tmp_path / name).write_bytes(b">x 1\nACGTACGT\n" * 200_000 + b"ACGT\x00\t3\n" if name == "a.fa" else
                                      b"ACGTACGTACGTACGTACGT\t1\n" * 200_000 + b"ACGT\x00\t3\n")  # fmt: skip
        with pytest.raises(UserError, match="NUL byte"):
            read_rows([tmp_path / name])


def test_bytes_that_are_not_utf8_are_refused_with_their_line(tmp_path):
    (tmp_path / "a.tsv").write_bytes(f"{S[0]}\t1\n{S[1]}\t2\n".encode() + b"\xe9\t3\n")
    with pytest.raises(UserError, match=r"a\.tsv:3: not text in UTF-8"):
        read_rows([tmp_path / "a.tsv"])


def test_the_first_lines_are_those_of_the_reader():
    data = "a\x0bb\x85c\u2028d\ne\r\nf".encode()
    assert first_lines("x", [data], 10, 100) == ["a\x0bb\x85c\u2028d", "e", "f"] == [text for _, text in lines_of(data)]
    assert first_lines("x", [data], 2, 100) == ["a\x0bb\x85c\u2028d", "e"]
    with pytest.raises(UserError, match="x: the file is empty"):
        first_lines("x", [], 10, 100)


def test_audit_reports_a_lost_row(tmp_path, made, monkeypatch):
    from pipeline.dataset.build import build_dataset
    from pipeline.dataset.input import stream
    from tests.conftest import small_config

    def without_one(name, chunks, skip_lines):
        for numbers, lines in line_batches(name, chunks, skip_lines):
            yield numbers[:-1], lines[:-1]

    monkeypatch.setattr(stream, "line_batches", without_one)
    with pytest.raises(UserError, match=r"audit every_row_once\.sql: expected no rows, got \[\(1500, 1499, 0\)\]"):
        build_dataset([str(made.rows)], small_config(tmp_path))
