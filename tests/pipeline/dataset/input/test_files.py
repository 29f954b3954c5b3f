"""Files, patterns and URLs: exactly the named files are read, each with its own types."""

import bz2
import io
import json
import lzma
import zipfile
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.dataset.input.files import find_input
from pipeline.dataset.input.format import Columns
from pipeline.errors import UserError
from tests.pipeline.dataset.input.reading import read_rows, valid_rows

ROWS = [(f"ACGTACGTACGTACGTACGT{'ACGT'[i]}", i + 0.5) for i in range(4)]
OTHER = [(sequence[::-1], -label) for sequence, label in ROWS]


def text_of(rows, delimiter="\t"):
    return "".join(f"{sequence}{delimiter}{label}\n" for sequence, label in rows)


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"sequence": [s for s, _ in rows], "expression": [e for _, e in rows]}), path)
    elif path.suffix == ".fa":
        path.write_text("".join(f">x expression={label}\n{sequence}\n" for sequence, label in rows))
    else:
        path.write_text(text_of(rows))
    return path


@pytest.mark.parametrize(
    ("named", "beside"),
    [
        ("a[1].tsv", "a1.tsv"),
        ("a*.tsv", "ab.tsv"),
        ("a?.tsv", "ab.tsv"),
        ("a[1].parquet", "a1.parquet"),
        ("*.parquet", "a.parquet"),
        ("a[!x].fa", "ab.fa"),
        ("plates[12]/a.tsv", "plates1/a.tsv"),
        ("plate*/a.parquet", "plate2/a.parquet"),
        ("**/a.tsv", "b/a.tsv"),
        ("{a,b}.tsv", "a.tsv"),
    ],
)
def test_existing_file_name_is_not_a_pattern(tmp_path, named, beside):
    write(tmp_path / named, ROWS)
    write(tmp_path / beside, OTHER)
    assert valid_rows([tmp_path / named]) == ROWS
    assert valid_rows([tmp_path / beside]) == OTHER


@pytest.mark.parametrize("folder", ["expression=3", "line=3", "filename=3", "sequence=ACGT", "file=x", "fields=7"])
@pytest.mark.parametrize("name", ["a.tsv", "a.parquet", "a.fa"])
def test_names_of_folders_are_no_columns(tmp_path, folder, name):
    assert valid_rows([write(tmp_path / folder / name, ROWS)]) == ROWS


def test_columns_of_a_table_do_not_hide_those_of_the_reader(tmp_path):
    columns = {name: ["x"] * 4 for name in ("file", "filename", "line", "name", "text", "fields")}
    table = pa.table({**columns, "sequence": [s for s, _ in ROWS], "expression": [e for _, e in ROWS]})
    pq.write_table(table, tmp_path / "a.parquet")
    assert valid_rows([tmp_path / "a.parquet"]) == ROWS


def labels_of(kind, values):
    if pa.types.is_decimal(kind):
        return pa.array(map(Decimal, values), kind)
    if pa.types.is_dictionary(kind):
        return pa.array(map(str, values)).dictionary_encode()
    return pa.array(values).cast(kind, safe=False)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (pa.int64(), pa.float64()),
        (pa.decimal128(4, 0), pa.float64()),
        (pa.decimal128(4, 1), pa.decimal128(8, 4)),
        (pa.float32(), pa.float64()),
        (pa.float16(), pa.float64()),
        (pa.uint8(), pa.float32()),
        (pa.string(), pa.float64()),
        (pa.dictionary(pa.int8(), pa.string()), pa.float64()),
        (pa.large_string(), pa.int16()),
    ],
)
def test_each_table_is_read_with_its_own_types(tmp_path, first, second):
    values = {"a": labels_of(first, [0, 2, 3]), "b": labels_of(second, [0.5, 1.5, 2.5])}
    for name, labels in values.items():
        table = pa.table({"sequence": [s for s, _ in ROWS[:3]], "expression": labels})
        pq.write_table(table, tmp_path / f"{name}.parquet")
    for names in ("ab", "ba"):
        expected = [float(value) for name in names for value in values[name].to_pylist()]
        rows = read_rows([tmp_path / f"{name}.parquet" for name in names])
        assert [label for _, _, label, _ in rows] == expected


@pytest.mark.parametrize("digits", ["0.1", "1e-07", "123456789.125", "-0.30000000000000004", "16777217"])
def test_numbers_of_tables_keep_their_values(tmp_path, digits):
    label = float(digits)
    pq.write_table(pa.table({"sequence": ["ACGT"], "expression": [label]}), tmp_path / "a.parquet")
    (tmp_path / "b.jsonl").write_text(json.dumps({"sequence": "ACGT", "expression": label}))
    for name in ("a.parquet", "b.jsonl"):
        assert [row[2] for row in read_rows([tmp_path / name])] == [label]


def test_column_of_another_type_is_named(tmp_path):
    pq.write_table(pa.table({"sequence": ["ACGT"], "expression": [[1.0, 2.0]]}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"a\.parquet: .expression. .*got .<list<"):
        read_rows([tmp_path / "a.parquet"], Columns(expression="expression"))
    twice = pa.Table.from_arrays(
        [pa.array(["ACGT"]), pa.array([1.0]), pa.array([2.0])], ["sequence", "expression", "expression"]
    )
    pq.write_table(twice, tmp_path / "b.parquet")
    with pytest.raises(UserError, match="several columns are named expression"):
        read_rows([tmp_path / "b.parquet"])


def zipped(text, *names):
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        for name in names:
            archive.writestr(name, text)
    return sink.getvalue()


TEXT = text_of(ROWS)
JSON = "".join(json.dumps({"id": i, "sequence": s, "expression": e}) + "\n" for i, (s, e) in enumerate(ROWS))
FASTA = "".join(f">x expression={label}\n{sequence}\n" for sequence, label in ROWS)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.tsv.bz2", bz2.compress(TEXT.encode())),
        ("a.csv.xz", lzma.compress(text_of(ROWS, ",").encode())),
        ("two_parts.tsv.bz2", bz2.compress(TEXT[:30].encode()) + bz2.compress(TEXT[30:].encode())),
        ("two_parts.tsv.xz", lzma.compress(TEXT[:30].encode()) + lzma.compress(TEXT[30:].encode())),
        ("a.zip", zipped(TEXT, "rows.tsv")),
        ("a.fa.zip", zipped(FASTA, "x/rows.fa")),
        ("mac.zip", zipped(TEXT, "rows.tsv", "__MACOSX/._rows.tsv")),
        ("a.jsonl", JSON.encode()),
        ("a.ndjson.xz", lzma.compress(JSON.encode())),
        ("a.jsonl.zip", zipped(JSON, "a.jsonl")),
    ],
)
def test_compressed_files(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    assert valid_rows([tmp_path / name]) == ROWS


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        (
            "two.zip",
            zipped(TEXT, "a.tsv", "b.tsv"),
            "expected one file in the archive, got 2: a.tsv, b.tsv; fix: unzip",
        ),
        ("none.zip", zipped(TEXT), "got 0"),
        ("inner.zip", zipped("x", "a.xlsx"), "expected a name ending in"),
        ("no.zip", b"PK\3\4", "cannot be read, corrupt or truncated"),
        ("cut.tsv.xz", lzma.compress(TEXT.encode())[:-8], "cannot be read, corrupt or truncated"),
        ("cut.tsv.bz2", bz2.compress(TEXT.encode() * 99)[:-8], "cannot be read, corrupt or truncated"),
        ("xz.tsv", lzma.compress(TEXT.encode()), "compressed or Parquet data; expected text"),
        ("zip.tsv", zipped(TEXT, "a.tsv"), "compressed or Parquet data; expected text"),
        ("a.parquet.gz", b"x", "expected a name ending in"),
        ("no.arrow", b"x", "cannot be read as Arrow"),
        ("list.jsonl", b"[1, 2]\n", "list.jsonl:1: expected a JSON object"),
        ("cut.jsonl", f'{JSON}{{"sequence": "AC'.encode(), "cut.jsonl:5: not JSON"),
        ("twice.jsonl", b'{"sequence": "ACGT", "expression": 1, "expression": 2}\n', "duplicate key"),
        ("none.tsv.xz", lzma.compress(b""), "the file is empty"),
    ],
)
def test_files_that_cannot_be_read_are_refused(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=message):
        read_rows([tmp_path / name])


def test_json_lines_keep_each_value_apart(tmp_path):
    lines = [
        {"sequence": "ACGT", "expression": 1},
        {"expression": 2.5, "sequence": "ACGTA"},
        {"sequence": "ACGTC", "expression": "3.5", "more": {"a": [1]}},
        {"sequence": "ACGTG", "expression": None},
        {"sequence": "ACGTT", "expression": True},
        {"expression": 4},
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    assert read_rows([tmp_path / "a.jsonl"]) == [
        (1, "ACGT", 1, None),
        (2, "ACGTA", 2.5, None),
        (3, "ACGTC", 3.5, None),
        (4, "ACGTG", None, "no_number"),
        (5, "ACGTT", None, "no_number"),
        (6, None, 4, "no_sequence"),
        (7, None, None, "no_sequence"),
    ]


def write_arrow(path, form):
    table = pa.table({"sequence": [s for s, _ in ROWS], "expression": [e for _, e in ROWS]})
    path.parent.mkdir(parents=True, exist_ok=True)
    with pa.OSFile(str(path), "wb") as file, form(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=3)
    return path


@pytest.mark.parametrize("form", [pa.ipc.new_file, pa.ipc.new_stream])
def test_arrow_files(tmp_path, form):
    assert valid_rows([write_arrow(tmp_path / "a.arrow", form)]) == ROWS


def test_folder_of_save_to_disk_is_read(tmp_path):
    names = [f"data-0000{number}-of-00002.arrow" for number in range(2)]
    for name in names:
        write_arrow(tmp_path / "hf" / "train" / name, pa.ipc.new_stream)
    state = {"_data_files": [{"filename": name} for name in names], "_indices_data_files": None}
    (tmp_path / "hf" / "train" / "state.json").write_text(json.dumps(state))
    assert valid_rows([tmp_path / "hf" / "train"]) == ROWS * 2
    (tmp_path / "hf" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    with pytest.raises(UserError, match=r"holds the splits train, test; fix: name one, such as .*hf/train"):
        find_input([str(tmp_path / "hf")])
    state["_indices_data_files"] = [{"filename": "indices.arrow"}]
    (tmp_path / "hf" / "train" / "state.json").write_text(json.dumps(state))
    with pytest.raises(UserError, match="rows selected by an index"):
        find_input([str(tmp_path / "hf" / "train")])
    (tmp_path / "hf" / "train" / "state.json").write_text("{}")
    with pytest.raises(UserError, match="not as save_to_disk writes it"):
        find_input([str(tmp_path / "hf" / "train")])
