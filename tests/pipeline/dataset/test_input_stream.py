import gzip
from pathlib import Path

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.dataset.input_format import Input, Layout
from pipeline.dataset.input_stream import fasta_lines, piped, sequence_lines
from pipeline.dataset.input_view import define_input
from pipeline.errors import UserError

LINES = st.lists(st.sampled_from([">a", ">b 1.5", ">", "ACGT", "acgt", "", "AC GT", "N"]), min_size=1, max_size=12)


def lines(text):
    return [line.decode().rstrip("\n") for line in sequence_lines(text.encode().splitlines(keepends=True))]


def test_entries_by_hand():
    assert lines(">a\nAC\r\nGT\n>b\n\n>c\nTT") == ["ACGT", "", "TT"]
    assert lines("\nAC\nGT\n>a\nT\n") == ["ACGT", "T"]
    assert lines("\n\n") == []


@settings(max_examples=40, deadline=None)
@given(st.lists(LINES, min_size=1, max_size=2))
def test_entries_are_those_that_the_build_finds(tmp_path_factory, made, texts):
    """The view of sql/inputs/fasta.sql reads whole files; this reads them as a stream."""
    folder = tmp_path_factory.mktemp("fasta")
    names = []
    for number, text in enumerate(texts):
        names.append(str(folder / f"{number}.fasta"))
        (folder / f"{number}.fasta").write_text("\n".join(text) + "\n")
    with duckdb.connect() as connection:
        define_input(connection, made.config.assay, Input(names, Layout("fasta"), labelled=False))
        built = [sequence or "" for (sequence,) in connection.execute("select sequence from input").fetchall()]
    assert [line.decode().rstrip("\n") for line in fasta_lines(names)] == built


def test_a_damaged_file_is_an_error_and_not_its_end(tmp_path):
    data = gzip.compress((">a\n" + "ACGT" * 50_000 + "\n").encode())
    (tmp_path / "cut.fasta.gz").write_bytes(data[:-20])
    with (
        pytest.raises(UserError, match=r"cut\.fasta\.gz: cannot be read, damaged or cut off"),
        piped(fasta_lines([str(tmp_path / "cut.fasta.gz")])) as path,
    ):
        Path(path).read_bytes()


def test_a_reader_that_leaves_early_holds_nobody():
    def leave():
        with piped(b"ACGT\n" for _ in iter(int, 1)) as path, Path(path).open("rb") as pipe:
            assert pipe.readline() == b"ACGT\n"
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        leave()
