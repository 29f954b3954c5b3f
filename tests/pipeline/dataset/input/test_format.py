"""Detected formats: each case gives the dataset of the plain file."""

import gzip
import http.server
import subprocess
import threading
from functools import partial

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.dataset.build import build_dataset
from pipeline.dataset.database import open_dataset
from pipeline.dataset.input.columns import Columns
from pipeline.dataset.input.files import find_input
from pipeline.errors import UserError
from tests.conftest import ROOT
from tests.integration.conftest import BIN
from tests.pipeline.dataset.toy_dataset import OUTPUTS, TOY, L, R, everything, toy_config, write

ROWS = [(f"{L}{insert}{R}", expression) for insert, expression in TOY]
DNA = "ACGTA" * 5
PLAIN = "".join(f"{sequence}\t{expression}\n" for sequence, expression in ROWS)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    build_dataset([write(folder / "toy.tsv", PLAIN)], config := toy_config(folder))
    return everything(config.dataset.path)


def packed_by_zstd(text):
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(text.encode())
    return sink.getvalue().to_pybytes()


def wrapped(sequence):
    return "\n".join(sequence[i : i + 20] for i in range(0, len(sequence), 20))


CSV = "".join(f"{sequence},{expression}\n" for sequence, expression in ROWS)
FASTA = "".join(f">{i} expression={expression}\n{sequence}\n" for i, (sequence, expression) in enumerate(ROWS))
WRITTEN = {
    "comma.csv": CSV,
    "header.csv": f"sequence,expression\n{CSV}",
    "capitals.csv": f'"Sequence","Activity"\r\n{CSV}'.replace("\n", "\r\n").replace("\r\r", "\r"),
    "quoted.csv": "".join(f'"{sequence}","{expression}"\n' for sequence, expression in ROWS),
    "semicolon.csv": CSV.replace(",", ";"),
    "swapped.tsv": "".join(f"{expression}\t{sequence}\n" for sequence, expression in ROWS),
    "five.tsv": "id\tactivity\tgc\tsequence\tsource\n"
    + "".join(f"{i}\t{expression}\t0.5\t{sequence}\tlab\n" for i, (sequence, expression) in enumerate(ROWS)),
    "three.txt": "".join(f"promoter{i}\t{sequence}\t{expression}\n" for i, (sequence, expression) in enumerate(ROWS)),
    "packed.csv.gz": gzip.compress(CSV.encode()),
    "packed.tsv.zst": packed_by_zstd(PLAIN),
    "one_line.fa": FASTA,
    "wrapped.fasta": "".join(f">p|label={e}|x\r\n{wrapped(sequence)}\r\n" for sequence, e in ROWS),
    "packed.fasta.gz": gzip.compress(FASTA.encode()),
    "packed.fa.zst": packed_by_zstd(f"\n\n{FASTA}"),
}


WRITTEN |= {
    "note_first.csv": "".join(f'"plate 1, well {i}","{s}","{e}"\n' for i, (s, e) in enumerate(ROWS)),
    "note_quoted.csv": "".join(f'"a ""b"", c",{s},{e}\n' for s, e in ROWS),
    "empty_first.csv": "".join(f',"{s}",{e}\n' for s, e in ROWS),
    "barcode.tsv": "".join(f"ACGTACGTACGT\t{s}\t{e}\n" for s, e in ROWS),
    "bom.tsv": f"\ufeff{PLAIN}",
}


@pytest.mark.parametrize("name", WRITTEN)
def test_file_format_does_not_change_the_dataset(tmp_path, plain, name):
    config = toy_config(tmp_path)
    built = build_dataset([write(tmp_path / name, WRITTEN[name])], config)
    assert built.info.input_rows == 12
    assert everything(config.dataset.path) == plain


def test_the_hubs_columns_and_others_by_name(tmp_path, plain):
    sequences, labels = [s for s, _ in ROWS], [float(e) for _, e in ROWS]
    pq.write_table(pa.table({"row_id": range(12), "activity": labels, "sequence": sequences}), tmp_path / "hub.parquet")
    build_dataset([str(tmp_path / "hub.parquet")], config := toy_config(tmp_path / "hub"))
    assert everything(config.dataset.path) == plain
    pq.write_table(pa.table({"dna": sequences, "strength": labels}), tmp_path / "own.parquet")
    for columns in (Columns("dna", "strength"), Columns("1", "2")):
        config = toy_config(tmp_path / f"own{columns.sequence}")
        build_dataset([str(tmp_path / "own.parquet")], config, columns=columns)
        assert everything(config.dataset.path) == plain
    named = "sequence\t3\t2\n" + "".join(f"{s}\t1\t{e}\n" for s, e in ROWS)
    build_dataset(
        [write(tmp_path / "n.tsv", named)], config := toy_config(tmp_path / "n"), columns=Columns(expression="2")
    )
    assert everything(config.dataset.path) == plain
    text = "dna,other,strength\n" + "".join(f"{s},1,{e}\n" for s, e in ROWS)
    for columns in (
        Columns("dna", "strength"),
        Columns("dna", "3"),
        Columns(expression="strength"),
        Columns(None, "3"),
    ):
        config = toy_config(tmp_path / f"{columns.sequence}{columns.expression}")
        build_dataset([write(tmp_path / "own.csv", text)], config, columns=columns)
        assert everything(config.dataset.path) == plain


@pytest.mark.parametrize(
    ("name", "text", "columns", "message"),
    [
        ("a.csv", "dna,other,strength\nACGT,1,2\n", Columns("dna"), "ambiguous label column: "),
        ("a.csv", "sequence,expression\nACGT,1\n", Columns("dna"), "no column dna; it has sequence, expression"),
        ("a.tsv", "ACGT\t1\n", Columns("dna"), "no column dna; it has 2 columns and no header line"),
        ("a.tsv", "ACGT\t1\n", Columns("3"), "no column 3; it has 2"),
        ("a.tsv.gz", "ACGT\t1\n", None, "cannot be read"),
        # Which of two columns of numbers is the label cannot be seen.
        ("a.tsv", f"{DNA}\t3\t11.5\n{DNA}\t4\t12.5\n", None, r"ambiguous label column: column 2 \(2 n.* column 3 \("),
        (
            "a.tsv",
            f"id\tpromoter_seq\tmean\tsd\na\t{DNA}\t3\t1\n",
            None,
            r"label column: 'mean' \(.*\), 'sd' \(.*\); fix: name it, such as --.* mean",
        ),
        (
            "a.tsv",
            "seq\tid\tlab\texpr\nACGTA\t3\tx\t1.5\n",
            None,
            r"label column: 'id' \(1 number, 3 … 3\), 'expr' \(1 number, 1.5 … 1.5\); fix: name it, such as --.* expr,",
        ),
        # Two columns of DNA, neither of which is a barcode; the header line holds no known name.
        ("a.csv", f"a,b,y\n{DNA}C,{DNA}CG,1\n", None, r"columns 1 \(a\), 2 \(b\);.* choose one: --sequence-column"),
        ("a.csv", f"{DNA}C,{DNA}CG,1\n", None, "ambiguous columns 1, 2; fix: choose one: --sequence-column"),
        (
            "a.csv",
            "name,score,organism\np1,1.5,yeast\n",
            None,
            "no column holds sequences; got columns name, score, org",
        ),
        (
            "a.csv",
            "sequence,expression,expression\nACGTA,5,6\n",
            None,
            r"ambiguous label column: 'expression' \(1 number, 5 … 5\), 'expression' \(1 number, 6 … 6\).* --.* 2,",
        ),
        ("a.csv", "sequence;expression\nACGTA;15\nACGTA;15,5\n", None, "decimal comma in 'expression', row 2 .*'15,5'"),
        ("a.tsv", f"{DNA}\t15,5\n{DNA}\t15\n", None, "decimal comma"),
        ("a.txt", ">p 5\nACGTA\n", None, ": FASTA without its suffix"),
        ("a.tsv", gzip.compress(b"ACGT\t1\n", mtime=0), None, "compressed or Parquet data; expected text"),
        ("a.tsv", "ACGT\t1\n".encode("utf-16"), None, "not a text file in UTF-8"),
    ],
)
def test_missing_columns_are_refused(tmp_path, name, text, columns, message):
    with pytest.raises(UserError, match=message):
        find_input([write(tmp_path / name, text)], columns)


def test_files_of_different_layouts_are_refused(tmp_path):
    files = [write(tmp_path / "a.tsv", PLAIN), write(tmp_path / "b.csv", f"sequence,expression\n{CSV}")]
    with pytest.raises(UserError, match=r"b\.csv: its layout differs from that of .*a\.tsv \(delimiter: '\\t' and ','"):
        find_input(files)
    with pytest.raises(UserError, match="text files together"):
        find_input([files[0], write(tmp_path / "c.fa", FASTA)])
    with pytest.raises(UserError, match="duplicate file"):
        find_input([files[0], str(tmp_path / "*.tsv")])
    (tmp_path / "made").mkdir()
    with pytest.raises(UserError, match=r"made: not a file; the folder holds no input files$"):
        find_input([str(tmp_path / "made")])
    for name in ("rejects", "finetune/test", "finetune/train"):
        path = tmp_path / "made" / f"{name}.parquet"
        path.parent.mkdir(exist_ok=True)
        path.touch()
    with pytest.raises(
        UserError, match=r"not a file; fix: name the files in it, such as /.*/made/finetune/\*\.parquet$"
    ):
        find_input([str(tmp_path / "made")])


def test_no_row_becomes_a_header(tmp_path):
    """An invalid first row is a reject, not silently a header line."""
    config = toy_config(tmp_path)
    built = build_dataset([write(tmp_path / "toy.tsv", f"XQ12\tfoo\n{PLAIN}")], config)
    assert built.rejects == {"letters other than ACGTN": 1}
    with open_dataset(config.dataset.path) as connection:
        assert connection.execute("select line, text from rejects").fetchall() == [(1, "XQ12\tfoo")]


def test_row_with_a_column_name_is_a_row(tmp_path, plain):
    text = "".join(f"{sequence}\t{expression}\tlabel\n" for sequence, expression in ROWS)
    for columns in (None, Columns("1", "2"), Columns(expression="2")):
        config = toy_config(tmp_path / str(columns and columns.sequence))
        build_dataset([write(tmp_path / "toy.tsv", text)], config, columns=columns)
        assert everything(config.dataset.path) == plain


def test_line_numbers_of_rejects_count_header_and_entry_lines(tmp_path):
    text = f"sequence,expression\n{CSV}bad,1\n"
    build_dataset([write(tmp_path / "a.csv", text)], config := toy_config(tmp_path / "csv"))
    with open_dataset(config.dataset.path) as connection:
        assert connection.execute("select line, text from rejects").fetchall() == [(14, "bad,1")]
    fasta = f"junk!\n{FASTA}>x 5\nAC\nGT\n>y nothing\n{ROWS[0][0]}\n"
    build_dataset([write(tmp_path / "a.fa", fasta)], config := toy_config(tmp_path / "fasta"))
    with open_dataset(config.dataset.path) as connection:
        assert connection.execute("select line, reason, text from rejects order by line").fetchall() == [
            (1, "letters other than ACGTN", "junk!"),
            (26, "left adapter missing", ">x 5\nAC\nGT"),
            (29, "expression is not a number", f">y nothing\n{ROWS[0][0]}"),
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("nan.tsv", "".join(f"{sequence}\tnan\n" for sequence, _ in ROWS)),
        ("none.txt", "".join(f"{sequence}\n" for sequence, _ in ROWS)),
        ("header.csv", "sequence\n" + "".join(f"{sequence}\n" for sequence, _ in ROWS)),
        ("bare.fasta", "".join(f">promoter_a\n{sequence}\n" for sequence, _ in ROWS)),
        ("numbered.fasta", "".join(f">{i}\n{sequence}\n" for i, (sequence, _) in enumerate(ROWS))),
        ("empty.csv", "sequence,expression\n" + "".join(f"{sequence},\n" for sequence, _ in ROWS)),
        ("headed.csv", "sequence,expression\n" + "".join(f"{sequence},nan\n" for sequence, _ in ROWS)),
    ],
)
@pytest.mark.parametrize("overrides", [(), ("dataset.duplicates=average",), ("dataset.split=grouped",)])
def test_rows_without_labels_are_all_test_rows(tmp_path, name, content, overrides):
    config = toy_config(tmp_path, *overrides)
    built = build_dataset([write(tmp_path / name, content)], config)
    assert built.info.cut is None
    assert (built.info.promoters, built.info.finetune_test_rows, built.info.pretrain_rows) == (12, 12, 0)
    with open_dataset(config.dataset.path) as connection:
        rows = connection.execute("select sequence, expression, split from finetune").fetchall()
    assert sorted(rows) == sorted((sequence, None, "test") for sequence, _ in ROWS)


def test_labels_after_the_sampled_lines_count(tmp_path):
    text = "".join(f"{sequence}\tnan\n" for sequence, _ in ROWS) * 100 + PLAIN
    built = build_dataset([write(tmp_path / "late.tsv", text)], toy_config(tmp_path))
    assert built.info.promoters == 12
    assert built.rejects == {"expression is NaN": 1200}


def test_parquet_without_labels(tmp_path):
    pq.write_table(pa.table({"sequence": [sequence for sequence, _ in ROWS]}), tmp_path / "a.parquet")
    assert build_dataset([str(tmp_path / "a.parquet")], toy_config(tmp_path)).info.cut is None
    for labels in ([None] * 12, [float("nan")] * 12):
        columns = {"sequence": [sequence for sequence, _ in ROWS], "expression": pa.array(labels, pa.float64())}
        pq.write_table(pa.table(columns), tmp_path / "b.parquet")
        built = build_dataset([str(tmp_path / "b.parquet")], toy_config(tmp_path))
        assert (built.info.cut, built.info.promoters) == (None, 12)


def test_files_from_the_web(tmp_path, plain):
    (tmp_path / "served").mkdir()
    write(tmp_path / "served" / "toy.tsv.gz", gzip.compress(f"bad\n{PLAIN}".encode()))
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path / "served")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/toy.tsv.gz"
        config = toy_config(tmp_path)
        build_dataset([f"{url}?download=1"], config)
        with pytest.raises(UserError, match=r"none\.tsv: cannot fetch"):
            build_dataset([url.replace("toy.tsv.gz", "none.tsv")], config)
        server.shutdown()
    contents = everything(config.dataset.path)
    assert contents["promoters"] == plain["promoters"]
    with open_dataset(config.dataset.path) as connection:
        assert connection.execute("select file, line from rejects").fetchall() == [(f"{url}?download=1", 1)]
    assert sorted(path.name for path in tmp_path.iterdir()) == [*sorted(OUTPUTS), "served"]


def test_files_from_s3(tmp_path, plain, s3):
    """From a real S3 server on this machine; every part of the response is sent over HTTP."""
    with fsspec.open(f"{s3}/toy.csv", "wb") as file:
        file.write(CSV.encode())
    build_dataset([f"{s3}/toy.csv"], config := toy_config(tmp_path))
    assert everything(config.dataset.path) == plain


def test_predict_describes_its_input(tmp_path):
    write(tmp_path / "five.tsv", WRITTEN["five.tsv"])
    done = subprocess.run(
        [BIN / "promoter-bert", "build", "five.tsv", "--config", ROOT / "configs/demo.yaml", "--dataset", "d.duckdb"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "a header line and 5 columns: sequences in column 4, labels in column 2" in done.stdout
