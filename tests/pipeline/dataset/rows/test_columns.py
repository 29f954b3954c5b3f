"""Kept columns with their types and names, several labels, and the filter."""

import datetime
import random

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.dataset.build import build_dataset
from pipeline.dataset.input.columns import Columns
from pipeline.dataset.workspace import PARQUET_COLUMNS
from pipeline.errors import UserError
from tests.pipeline.dataset.rows.small_tables import bare_config, select, sequences, write_table

ROWS = 60
SIZES = ("dataset.finetune_valid=0.2", "dataset.finetune_test=0.1")


def types_of(config):
    return dict(select(config, "select column_name, column_type from (describe promoters)"))


def test_types_come_from_the_whole_column(tmp_path):
    cells = {
        "whole": [*range(ROWS - 1), "NA"],
        "number": [*range(ROWS - 1), "1.5"],
        "late": [*range(ROWS - 1), "x1"],
        "gene": [f"{i:03}" for i in range(ROWS)],
        "empty": [""] * ROWS,
        "Split": [i % 3 for i in range(ROWS)],
        "label": ["strong"] * ROWS,
        "ID": [f"name {i}" for i in range(ROWS)],
        "id": list(range(ROWS)),
        'a "quoted" name': [f"v{i}" if i else "" for i in range(ROWS)],
    }
    header = ["seq", "activity", *cells]
    rows = list(zip(sequences(ROWS), [i % 9 for i in range(ROWS)], *cells.values(), strict=True))
    config = bare_config(tmp_path, *SIZES, "dataset.pretrain_valid=0.2")
    built = build_dataset([write_table(tmp_path / "a.tsv", header, rows)], config)
    names = [
        "whole",
        "number",
        "late",
        "gene",
        "empty",
        "Split_input",
        "label_input",
        "ID_input",
        "id_input_2",
        'a "quoted" name',
    ]
    assert built.kept_columns == names
    kinds = ["BIGINT", "DOUBLE", "VARCHAR", "VARCHAR", "VARCHAR", "BIGINT", "VARCHAR", "VARCHAR", "BIGINT", "VARCHAR"]
    assert list(types_of(config).items())[3:] == list(zip(names, kinds, strict=True))
    found = select(
        config, "select sequence, columns(* exclude (id, sequence, expression)) from promoters order by whole"
    )
    assert found[0] == (rows[0][0], 0, 0.0, "0", "000", None, 0, "strong", "name 0", 0, None)
    assert found[-1][1:] == (None, 1.5, "x1", "059", None, 2, "strong", "name 59", 59, "v59")
    # Joined with other relations, and in Parquet.
    joined = "select count(*) from promoters join finetune using (id) join pretrain using (id)"
    assert select(config, joined) == [(built.info.pretrain_rows,)]
    assert select(config, "select label, label_input from predictions join promoters using (id)") == []
    copied = duckdb.sql(f"from '{built.parquet}/*.parquet'")
    copied = copied.select(f"id, columns(* exclude ({', '.join(PARQUET_COLUMNS)}))").order("id").fetchall()
    assert copied == select(config, "select * exclude (sequence, expression) from promoters order by id")


def test_parquet_types_are_kept(tmp_path):
    columns = {
        "day": pa.array([datetime.date(2020, 1, 1 + i % 28) for i in range(ROWS)]),
        "flag": pa.array([bool(i % 2) for i in range(ROWS)]),
        "count": pa.array(range(ROWS), pa.int32()),
        "replicates": pa.array([[i, None] for i in range(ROWS)], pa.list_(pa.float32())),
        "chrom": pa.array([f"chr{i % 3}" for i in range(ROWS)]).dictionary_encode(),
        "nothing": pa.nulls(ROWS),
        "half": pa.array([1.5] * ROWS, pa.float16()),
    }
    table = pa.table({"seq": sequences(ROWS), "activity": [i / 4 for i in range(ROWS)], **columns})
    pq.write_table(table.slice(0, 40), tmp_path / "a.parquet")
    pq.write_table(table.slice(40).drop_columns(["flag"]), tmp_path / "b.parquet")
    config = bare_config(tmp_path, *SIZES)
    build_dataset([str(tmp_path / "?.parquet")], config)
    kinds = ["DATE", "BOOLEAN", "INTEGER", "FLOAT[]", "VARCHAR", "VARCHAR", "FLOAT"]
    assert list(types_of(config).items())[3:] == list(zip(columns, kinds, strict=True))
    found = select(
        config, "select sequence, columns(* exclude (id, sequence, expression)) from promoters order by count"
    )
    expected = [(row["seq"], *(row[name] for name in columns)) for row in table.to_pylist()]
    assert found == [row if i < 40 else (*row[:2], None, *row[3:]) for i, row in enumerate(expected)]


def test_names_of_fasta_are_kept(tmp_path):
    entries = sequences(ROWS)
    (tmp_path / "a.fa").write_text("".join(f">e{i} activity={i % 9}\n{bases}\n" for i, bases in enumerate(entries)))
    config = bare_config(tmp_path, *SIZES)
    build_dataset([str(tmp_path / "a.fa")], config)
    found = select(config, "select name, sequence from promoters")
    assert sorted(found) == sorted((f"e{i}", bases) for i, bases in enumerate(entries))


def label_rows(seed=0):
    """Rows of three labels with missing values: (sequence, a, b, c, note)."""
    rng = random.Random(seed)
    rows = []
    for number, sequence in enumerate([*sequences(50), *sequences(10)]):
        labels = [rng.choice(["", "NA", "nan"]) if rng.random() < 0.3 else rng.randrange(-40, 40) / 4 for _ in "abc"]
        rows.append((sequence, *labels, f"n{number}"))
    return rows


def value(cell):
    return None if isinstance(cell, str) else float(cell)


@pytest.mark.parametrize("cut_label", ["", "b", "max"])
def test_several_labels_with_missing_values(tmp_path, cut_label):
    rows = label_rows()
    file = write_table(tmp_path / "a.tsv", ("seq", "a", "b", "c", "note"), rows)
    config = bare_config(tmp_path, *SIZES, "dataset.labels=[a, b, c]", f"dataset.cut_label={cut_label}")
    built = build_dataset([file], config)
    valid = [row for row in rows if any(value(cell) is not None for cell in row[1:4])]
    assert built.info.labels == ["a", "b", "c"]
    found = select(config, "select sequence, a, b, c, note from promoters")
    assert sorted(found, key=str) == sorted(((s, *map(value, labels), n) for s, *labels, n in valid), key=str)
    assert built.rejects == ({"no label": len(rows) - len(valid)} if len(rows) > len(valid) else {})
    for label, place in zip(built.labels, (1, 2, 3), strict=True):
        values = [v for row in valid if (v := value(row[place])) is not None]
        missing = len(valid) - len(values)
        assert label == {
            "name": "abc"[place - 1],
            "count": len(values),
            "missing": missing,
            "low": min(values),
            "high": max(values),
        }
    steering = select(config, "select expression, a, b, c from promoters")
    if cut_label == "max":
        moments = []
        for place in (1, 2, 3):
            values = [v for row in valid if (v := value(row[place])) is not None]
            mean = sum(values) / len(values)
            moments.append((mean, (sum((v - mean) ** 2 for v in values) / len(values)) ** 0.5))
        for highest, *labels in steering:
            scaled = [(v - m) / sd for v, (m, sd) in zip(labels, moments, strict=True) if v is not None]
            assert highest == pytest.approx(max(scaled), rel=1e-9)
    else:
        assert all(row[0] == row[2 if cut_label else 1] for row in steering)
    measured = sorted((row[0] for row in steering if row[0] is not None), reverse=True)
    assert built.info.cut == measured[int(0.2 * len(measured))]
    assert built.info.pretrain_rows == sum(label >= built.info.cut for label in measured)
    names = [name for name, *_ in select(config, "describe finetune")]
    assert names == ["id", "sequence", "expression", "split", "position", "a", "b", "c"]


def test_labels_and_kept_columns_do_not_depend_on_order_threads_or_memory(tmp_path):
    rows = label_rows(3)
    rows += [(*row[:4], f"twin {number}") for number, row in enumerate(rows[:9])]
    results = []
    for number, (threads, memory) in enumerate([(1, None), (2, "100MB"), (3, None)]):
        random.Random(number).shuffle(rows)
        for duplicates in ("keep", "average"):
            config = bare_config(
                tmp_path / f"{number}{duplicates}", *SIZES, f"dataset.duplicates={duplicates}", "dataset.cut_label=max"
            )
            file = write_table(tmp_path / f"{number}.tsv", ("seq", "a", "b", "c", "note"), rows)
            columns = Columns(expression=("a", "b", "c"))
            built = build_dataset([file], config, columns=columns, threads=threads, memory_limit=memory)
            results.append((built.info.key, select(config, "from promoters")))
    assert results[0::2] == [results[0]] * 3
    assert results[1::2] == [results[1]] * 3


def test_the_key_depends_on_labels_but_not_on_kept_columns(tmp_path):
    rows = [row for row in label_rows() if value(row[1]) is not None]
    keys = {}
    for name, header in {"a": "seq a b c note", "other": "seq a b c other", "swapped": "seq a c b note"}.items():
        file = write_table(tmp_path / f"{name}.tsv", header.split(), rows)
        for labels in (("a",), ("a", "b"), ("a", "c")):
            config = bare_config(tmp_path / f"{name}{labels}", *SIZES)
            keys[name, labels] = build_dataset([file], config, columns=Columns(expression=labels)).info.key
    assert keys["a", ("a",)] == keys["other", ("a",)] == keys["swapped", ("a",)]
    assert keys["a", ("a", "b")] == keys["other", ("a", "b")]
    assert len(set(keys.values())) == 5  # a; ab and ac, each of two columns


@pytest.mark.parametrize(
    ("where", "count"),
    [
        ("lfcSE < 1", 30),
        ("lfcSE < 1 and chrom = 'chr1'", 10),
        ("activity >= 2 and length(seq) = 30", 60 - 14),
        ("lfcSE is null -- none", 0),
        ("starts_with(chrom, 'chr2')", 20),
    ],
)
def test_filtered_rows_are_rejects(tmp_path, where, count):
    rows = [(s, i % 9, 0.5 if i % 2 else 1.5, f"chr{i % 3}") for i, s in enumerate(sequences(ROWS))]
    file = write_table(tmp_path / "a.tsv", ("seq", "activity", "lfcSE", "chrom"), [*rows, ("ACGT?", 1, 0.5, "chr1")])
    config = bare_config(tmp_path, *SIZES, f"dataset.where={where}")
    if not count:
        with pytest.raises(UserError, match="filtered out"):
            build_dataset([file], config, columns=Columns(expression="activity"))
        return
    built = build_dataset([file], config, columns=Columns(expression="activity"))
    assert built.info.promoters == count
    passes = "letters other than ACGTN" in built.rejects
    assert built.rejects.get("filtered out by dataset.where", 0) == ROWS - count + (not passes)
    assert built.info.input_rows == ROWS + 1


@pytest.mark.parametrize(
    ("where", "problem"),
    [
        ("nope < 1", r"nope.*the columns are seq \(varchar\), activity \(double\), lfcSE \(double\)"),
        ("lfcSE <", "syntax error"),
        ("lfcSE < 1) union select (true", "not one expression"),
        ("lfcSE < (select max(x) from read_csv('{file}'))", "subquery"),
        ("exists(from '{file}')", "subquery"),
        ("true, false", "TUPLE"),
        ("row_number() over () < 5", "window"),
        ("max(lfcSE) < 5", "aggregate"),
        ("cast(seq as integer) < 5", "seq"),
        ("lfcSE < 5 and random() < 0.5", "random does not depend on the row"),
    ],
)
def test_filters_that_are_no_condition_of_a_row(tmp_path, where, problem):
    rows = [(s, i % 9, i / 8) for i, s in enumerate(sequences(ROWS))]
    file = write_table(tmp_path / "a.tsv", ("seq", "activity", "lfcSE"), rows)
    config = bare_config(tmp_path, *SIZES).dataset.model_copy(update={"where": where.format(file=file)})
    config = bare_config(tmp_path, *SIZES).model_copy(update={"dataset": config})
    with pytest.raises(UserError, match=problem) as raised:
        build_dataset([file], config, columns=Columns(expression="activity"))
    assert "\n" not in str(raised.value)


def test_settings_of_labels_do_not_matter_without_labels(tmp_path):
    rows = [(sequence, i, i) for i, sequence in enumerate(sequences(ROWS))]
    file = write_table(tmp_path / "a.tsv", ("seq", "a", "b"), rows)
    config = bare_config(tmp_path, "dataset.labels=[a, b]", "dataset.cut_label=b")
    built = build_dataset([file], config, columns=Columns(unlabelled=True))
    assert (built.info.labels, built.info.split_rows["finetune/test"]) == ([], ROWS)


@pytest.mark.parametrize("kind", ["tsv", "parquet"])
def test_labels_are_in_the_requested_order(tmp_path, kind):
    """The first one is that of the threshold."""
    columns = {"seq": sequences(ROWS), "a": [i % 7 / 2 for i in range(ROWS)], "b": [i % 9 / 4 for i in range(ROWS)]}
    file = str(tmp_path / f"a.{kind}")
    if kind == "parquet":
        pq.write_table(pa.table(columns), file)
    else:
        write_table(tmp_path / "a.tsv", columns, zip(*columns.values(), strict=True))
    keys = set()
    for labels in (["b", "a"], ["a", "b"]):
        config = bare_config(tmp_path / labels[0], *SIZES, f"dataset.labels=[{', '.join(labels)}]")
        built = build_dataset([file], config)
        keys.add(built.info.key)
        assert built.info.labels == labels == [label["name"] for label in built.labels]
        assert list(types_of(config))[3:] == labels
        found = select(config, "select sequence, a, b, expression from promoters")
        rows = zip(*columns.values(), columns[labels[0]], strict=True)
        assert sorted(found) == sorted(rows)
    assert len(keys) == 2


def test_cells_and_names_that_are_hard_to_keep(tmp_path):
    """Numbers of more digits than a double holds, a filter that is no YAML, and a column without a name."""
    table = pa.table(
        [sequences(ROWS), [i % 9 for i in range(ROWS)], range(ROWS), range(ROWS)],
        ["seq", "activity", "", 'a "b"'],
    )
    pq.write_table(table, tmp_path / "a.parquet")
    config = bare_config(tmp_path / "parquet", *SIZES, 'dataset.where="a ""b""" < 40')
    assert build_dataset([str(tmp_path / "a.parquet")], config).kept_columns == ["column3", 'a "b"']
    assert select(config, "select column3 from promoters order by 1") == [(i,) for i in range(40)]
    barcodes = [10**19 + i for i in range(ROWS)]
    rows = zip(sequences(ROWS), [i % 9 for i in range(ROWS)], barcodes, strict=True)
    config = bare_config(tmp_path / "text", *SIZES)
    build_dataset([write_table(tmp_path / "a.tsv", ("seq", "activity", "barcode"), rows)], config)
    assert select(config, "select barcode from promoters order by 1") == [(str(barcode),) for barcode in barcodes]


def test_a_first_label_without_values_is_an_error(tmp_path):
    rows = [(sequence, "NA", i % 9) for i, sequence in enumerate(sequences(ROWS))]
    file = write_table(tmp_path / "a.tsv", ("seq", "a", "b"), rows)
    with pytest.raises(UserError, match=r"label 'a' has no values.*fix: dataset.cut_label=max"):
        build_dataset([file], bare_config(tmp_path, *SIZES, "dataset.labels=[a, b]"))
    config = bare_config(tmp_path, *SIZES, "dataset.labels=[a, b]", "dataset.cut_label=b")
    assert build_dataset([file], config).info.promoters == ROWS
