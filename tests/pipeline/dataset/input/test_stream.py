import gzip
from dataclasses import replace

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.dataset.input import compression
from pipeline.dataset.input.files import Input
from pipeline.dataset.input.format import Layout
from pipeline.dataset.input.stream import LINE_SCHEMA, RowStream, fasta_files, fasta_input, line_input, row_batch
from pipeline.dataset.input.view import define_input, input_error
from pipeline.errors import UserError

FASTA = Input([], Layout("fasta", name_field=1), labelled=True)


def pieces(data, size):
    return [data[start : start + size] for start in range(0, len(data), size)]


def scan(assay, source, columns="line, text, name, sequence, expression", threads=1):
    with duckdb.connect() as connection:
        connection.execute(f"set threads = {threads}")
        define_input(connection, assay, source)
        return connection.execute(f"select {columns} from input").fetchall()


def entries(text):
    """Apply the definition line by line: line, text and sequence of each entry."""
    numbered = []
    for number, line in enumerate(text.replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n").split("\n"), 1):
        if line.startswith(">"):
            numbered.append((number, [line]))
        elif (numbered and numbered[-1][1][0].startswith(">")) or (line and numbered):
            numbered[-1][1].append(line)
        elif line:
            numbered.append((number, [line]))
    return [
        (number, "\n".join(lines), "".join(lines[lines[0].startswith(">") :])) for number, lines in numbered
    ]  # fmt: skip


def test_entries_by_hand(made):
    text = "\nAC\n\nGT\r\n>a x 1.5 \r\nAC\r\nGT\r\n>  b|2\n\n>c\n>d=\nT"
    rows = [
        (2, "AC\nGT", "", "ACGT", ""),
        (5, ">a x 1.5 \nAC\nGT", "a", "ACGT", "x"),
        (8, ">  b|2\n", "b|2", "", "2"),
        (10, ">c", "c", "", ""),
        (11, ">d=\nT", "d=", "T", ""),
    ]
    for size in (1, 2, 3, 7, 1000):
        assert scan(made.config.assay, replace(FASTA, stream=fasta_input("x", pieces(text.encode(), size)))) == rows
    for text in ("", "\n\n"):
        assert scan(made.config.assay, replace(FASTA, stream=fasta_input("x", [text.encode()]))) == []


LINES = st.lists(st.sampled_from([">a", ">b 1.5", ">", "ACGT", "acgt", "", "AC GT", "é"]), max_size=12)


@settings(max_examples=60, deadline=None)
@given(LINES, st.sampled_from(["\n", "\r\n", "\r"]), st.booleans(), st.integers(1, 9))
def test_entries_equal_the_definition_for_any_chunks(made, lines, end, is_last_ended, size):
    text = end.join(lines) + (end if is_last_ended else "")
    source = replace(FASTA, stream=fasta_input("x", pieces(text.encode(), size)))
    assert scan(made.config.assay, source, "line, text, sequence") == entries(text)


def test_each_scan_reads_the_files_from_the_beginning_and_in_order(tmp_path, made, monkeypatch):
    monkeypatch.setattr(compression, "CHUNK_BYTES", 10_000)
    names = []
    for number, unpacked in enumerate(("a.fasta", "b.fa.gz")):
        data = "".join(f">{number}_{i} {i}\nACGT\nN\n" for i in range(5000)).encode()
        names.append(str(tmp_path / unpacked))
        (tmp_path / unpacked).write_bytes(gzip.compress(data) if unpacked.endswith(".gz") else data)
    expected = [(names[n], 3 * i + 1, f"{n}_{i}", str(i)) for n in range(2) for i in range(5000)]
    source = replace(FASTA, stream=fasta_files(names))
    with duckdb.connect() as connection:
        connection.execute("set threads = 4")
        define_input(connection, made.config.assay, source)
        for _ in range(2):
            assert connection.execute("select file, line, name, expression from input").fetchall() == expected
            assert connection.execute("select count(*), min(sequence) from input").fetchall() == [(10_000, "ACGTN")]


def test_byte_order_marks_and_other_encodings(made):
    data = b"\xef\xbb\xbf>caf\xe9 5\nAC\xffGT\n"
    rows = scan(made.config.assay, replace(FASTA, stream=fasta_input("x", [data])), "name, sequence, expression")
    assert rows == [("caf\ufffd", "AC\ufffdGT", "5")]


@pytest.mark.parametrize("size", [1, 5, 100])
def test_lines_of_text_without_those_to_skip(made, size):
    source = Input([], Layout("text", columns=1, expression_field=0), labelled=False)
    data = b"\xef\xbb\xbfsequence\r\n\nACGT\r\n\r\nAC\tGT\nN"
    stream = line_input("x", pieces(data, size), 1)
    assert scan(made.config.assay, replace(source, stream=stream), "line, text") == [
        *enumerate(("", "ACGT", "", "AC\tGT", "N"), 2)
    ]
    broken = replace(source, stream=line_input("standard input", [b"ACGT\n\xff\n"], 0))
    with pytest.raises(duckdb.Error) as error:
        scan(made.config.assay, broken)
    with pytest.raises(UserError, match="standard input:2: not text in UTF-8"):
        raise input_error(broken, error.value)


def test_corrupt_compressed_file_is_an_error_not_an_end(tmp_path, made):
    data = gzip.compress((">a\n" + "ACGT" * 50_000 + "\n").encode())
    (tmp_path / "cut.fasta.gz").write_bytes(data[:-20])
    source = replace(FASTA, stream=fasta_files([str(tmp_path / "cut.fasta.gz")]))
    with pytest.raises(duckdb.Error) as error:
        scan(made.config.assay, source)
    with pytest.raises(UserError, match=r"cut\.fasta\.gz: cannot be read, corrupt or truncated"):
        raise input_error(source, error.value)


def test_a_scan_that_ends_early_ends_the_stream():
    ended = []

    def batches():
        try:
            while True:
                yield row_batch(LINE_SCHEMA, "x", [pa.array([1]), pa.array(["ACGT"])])
        finally:
            ended.append(True)

    stream = RowStream(LINE_SCHEMA, batches)
    with duckdb.connect() as connection:
        connection.register("rows", stream)
        assert connection.execute("select line from rows limit 1").fetchall() == [(1,)]
    assert (ended, stream.error) == ([True], None)
