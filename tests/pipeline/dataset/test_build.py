import gzip
import random
import re
import subprocess
import sys
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from model.config import load_config
from pipeline.dataset.build import build_dataset
from pipeline.dataset.built_settings import as_built
from pipeline.dataset.database import dataset_info, open_dataset, statement
from pipeline.dataset.input.columns import Columns
from pipeline.errors import UserError
from tests.conftest import ROOT, small_config
from tests.pipeline.dataset.toy_dataset import GOOD, TOY, L, R, everything, line, toy_config, write


def test_fewer_training_rows_change_nothing_else(tmp_path):
    """finetune_train takes the first training rows; held-out rows and pretraining stay the same."""
    file = write(tmp_path / "toy.tsv", GOOD)
    results = {}
    for size in ("all", 4, 0.5, 7):
        config = toy_config(tmp_path, f"dataset.path={tmp_path}/{size}.duckdb", f"dataset.finetune_train={size}")
        built = build_dataset([file], config)
        rows = everything(config.dataset.path)
        results[size] = [rows["finetune"], rows["pretrain"], rows["promoters"]]
        assert built.info.finetune_train_rows == {"all": 7, 0.5: 6}.get(size, size)
        assert built.info.split_rows["finetune/train"] == built.info.finetune_train_rows
        copied = duckdb.sql(f"select count(*) from '{built.parquet}/train.parquet'").fetchall()
        assert copied == [(built.info.finetune_train_rows,)]
        results[size, "key"] = built.info.key
    for size in (4, 0.5):
        rows = built.info.split_rows["finetune/test"] + built.info.split_rows["finetune/valid"]
        assert results[size][0] == results["all"][0][: rows + (4 if size == 4 else 6)]
        assert results[size][1:] == results["all"][1:]
        assert results[size, "key"] != results["all", "key"]
    assert results[7] == results["all"]
    assert results[7, "key"] == results["all", "key"]
    with pytest.raises(UserError, match="finetune_train = 8 rows, but only 7 are not held out"):
        build_dataset([file], toy_config(tmp_path, "dataset.finetune_train=8"))


def test_build_of_twelve_rows_by_hand(tmp_path):
    config = toy_config(tmp_path)
    built = build_dataset([write(tmp_path / "toy.tsv", "".join(line(*row) for row in TOY))], config)
    assert built.info.cut == 7
    assert built.info.pretrain_rows == 6
    assert built.info.pretrain_valid_rows == 3
    assert built.rejects == {}
    with open_dataset(config.dataset.path) as connection:
        rows = connection.execute("select id, sequence, expression from promoters order by id").fetchall()
        hashes = dict(connection.execute("select id, hash(hash(sequence, 0::ubigint)) from promoters").fetchall())
        splits = connection.execute("select id, split, position from finetune order by id").fetchall()
        top = connection.execute("select id, split, position from pretrain order by id").fetchall()
    assert sorted((s, e) for _, s, e in rows) == sorted((f"{L}{i}{R}", float(e)) for i, e in TOY)
    assert [i for i, _, _ in rows] == list(range(12))
    assert [hashes[i] for i in range(12)] == sorted(hashes.values())
    assert [(s, p) for _, s, p in splits] == [
        *(("test", p) for p in range(2)), *(("valid", p) for p in range(3)), *(("train", p) for p in range(7))
    ]  # fmt: skip
    above = [i for i, _, e in rows if e >= 7]
    assert [i for i, _, _ in top] == above
    assert [(s, p) for _, s, p in top] == [*(("valid", p) for p in range(3)), *(("train", p) for p in range(3))]


REJECTED = [
    ("", "no sequence"),
    ("\t5", "no sequence"),
    (f"{L}ACGT{R}", "1 column, expected 2"),
    (f"{L}ACGT{R}\t5\t6", "3 columns, expected 2"),
    (f"{L}acgt{R}\t5", "lower-case bases"),
    (f"{L}ACUT{R}\t5", "U in the sequence"),
    (f"{L}ACRT{R}\t5", "IUPAC codes other than ACGTN"),
    (f"{L}AC-T{R}\t5", "letters other than ACGTN"),
    (f"{L}AC T{R}\t5", "white space in the sequence"),
    (f"ACGTACGT{R}\t5", "left adapter missing"),
    (f"{L}ACGT\t5", "right adapter missing"),
    (f"{L}{R}\t5", "insert too short"),
    (f"{L}{'A' * 501}{R}\t5", "insert too long"),
    (f"{L}ACGT{R}\t", "expression is not a number"),
    (f"{L}ACGT{R}\thigh", "expression is not a number"),
    (f"{L}ACGT{R}\t1_0", "expression is not a number"),
    (f"{L}ACGT{R}\tnan", "expression is NaN"),
    (f"{L}ACGT{R}\tinf", "expression out of the assay's range"),
    (f"{L}ACGT{R}\t-1e308", "expression out of the assay's range"),
    (f"{L}ACGT{R}\t17.01", "expression out of the assay's range"),
    ('"quoted', "1 column, expected 2"),
    ("sequence\texpression", "letters other than ACGTN"),
]


def test_every_row_is_used_or_rejected_with_its_place_and_reason(tmp_path):
    good = [line(*row) for row in TOY]
    lines = [text for (bad, _), fine in zip(REJECTED, good * 2, strict=False) for text in (f"{bad}\n", fine)]
    config = toy_config(tmp_path)
    file = write(tmp_path / "mixed.tsv", "".join(lines))
    built = build_dataset([file], config)
    with open_dataset(config.dataset.path) as connection:
        rejects = connection.execute("select file, line, reason, text from rejects order by line").fetchall()
    assert rejects == [(file, 2 * i + 1, reason, text) for i, (text, reason) in enumerate(REJECTED)]
    assert built.info.input_rows == len(lines)
    assert built.info.promoters == len(REJECTED)
    assert sum(built.rejects.values()) == len(REJECTED)


def test_letter_check_equals_a_regular_expression():
    """sql/01_rules.sql compares shares of common letters instead; also for text with ten others per ACGTN letter."""
    rng = random.Random(1)
    alphabet = "ACGTN" * 6 + "acgtnURYSWKMBDHV-. \t\0é→😀"
    texts = ["".join(rng.choices(alphabet, k=rng.randint(1, 12))) for _ in range(20_000)]
    texts += ["A" + "".join(chr(97 + n) for n in range(26)), "ACGTN" * 3, "N", "\u0141"]
    with duckdb.connect() as connection:
        for name in ("00_settings.sql", "01_rules.sql"):
            connection.execute(statement(name))
        connection.register("texts", pa.table({"text": texts}))
        results = connection.execute(
            "select text, sequence_code(text) in ('white_space', 'lower_case', 'uracil', 'iupac', 'letters') from texts"
        ).fetchall()
    assert len(results) == len(texts)
    assert all(other == bool(re.search("[^ACGTN]", text)) for text, other in results)
    assert 1000 < sum(other for _, other in results) < 19_000


def test_lines_are_counted_in_each_file(tmp_path):
    files = [write(tmp_path / f"{n}.tsv", "".join(line(*row) for row in TOY) + "bad\n" * n) for n in (1, 2)]
    build_dataset([str(tmp_path / "?.tsv")], config := toy_config(tmp_path))
    with open_dataset(config.dataset.path) as connection:
        rejects = connection.execute("select file, line from rejects").fetchall()
    assert rejects == [(files[0], 13), (files[1], 13), (files[1], 14)]


def test_every_kind_of_file_gives_the_same_dataset(tmp_path):
    text = "".join(line(*row) for row in TOY)
    table = pa.table(
        {"expression": [float(e) for _, e in TOY], "extra": [1] * 12, "sequence": [f"{L}{i}{R}" for i, _ in TOY]}
    )
    pq.write_table(table, tmp_path / "toy.parquet")
    files = [
        write(tmp_path / "toy.tsv", text),
        write(tmp_path / "toy.txt.gz", gzip.compress(text.encode())),
        write(tmp_path / "crlf.tsv", text.replace("\n", "\r\n")),
        write(tmp_path / "no_end.tsv", text.rstrip("\n")),
        str(tmp_path / "toy.parquet"),
    ]
    results = []
    for number, file in enumerate(files):
        config = toy_config(tmp_path / str(number))
        build_dataset([file], config)
        results.append(everything(config.dataset.path))
    assert all(other == results[0] for other in results[1:])


def test_same_dataset_whatever_the_row_order_threads_and_memory(tmp_path, made):
    lines = made.rows.read_text().splitlines(keepends=True)
    lines += lines[:50]  # duplicates
    results = []
    for number, (threads, memory) in enumerate([(1, None), (2, "200MB"), (4, None), (3, "100MB")]):
        random.Random(number).shuffle(lines)
        half = len(lines) // 2 if number % 2 else len(lines)
        files = [write(tmp_path / f"{number}a.tsv", "".join(lines[:half]))]
        if half < len(lines):
            files.append(write(tmp_path / f"{number}b.tsv", "".join(lines[half:])))
        config = small_config(tmp_path / str(number))
        build_dataset(files, config, threads=threads, memory_limit=memory)
        results.append(everything(config.dataset.path))
    assert all(other == results[0] for other in results[1:])
    other_seed = small_config(tmp_path / "other", "dataset.seed=1")
    build_dataset([str(made.rows)], other_seed)
    assert everything(other_seed.dataset.path)["finetune"] != results[0]["finetune"]


def test_equal_sequences_lie_together(tmp_path):
    rows = [line("ACGTACGT"[: 2 + i % 7], e) for i, e in enumerate([3, 4, 5] * 7)]
    config = toy_config(tmp_path)
    build_dataset([write(tmp_path / "twins.tsv", "".join(rows))], config)
    with open_dataset(config.dataset.path) as connection:
        groups = connection.execute(
            "select max(id) - min(id) + 1 = count(*) from promoters group by sequence having count(*) > 1"
        ).fetchall()
    assert groups == [(True,)] * 7


@pytest.mark.parametrize("fraction", [0.001, 0.2, 0.5, 1.0])
def test_threshold_is_the_label_at_its_rank(tmp_path, made, fraction):
    config = small_config(tmp_path, f"dataset.top_fraction={fraction}", "dataset.pretrain_valid=0.1")
    info = build_dataset([str(made.rows)], config).info
    labels = sorted((float(x.split("\t")[1]) for x in made.rows.read_text().splitlines()), reverse=True)
    assert info.cut == labels[min(int(fraction * 1500), 1499)]
    assert info.pretrain_rows == sum(x >= info.cut for x in labels)


def test_promoters_held_out_from_finetuning_are_not_pretrained_on(made):
    with open_dataset(made.config.dataset.path) as connection:
        seen = connection.execute(
            "select count(*) from pretrain p join finetune f using (id) where p.split = 'train' and f.split <> 'train'"
        ).fetchone()
    assert seen == (0,)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.tsv", b"", "the file is empty"),
        ("none.tsv", None, "no such file"),
        ("rows.xlsx", b"x", "expected a name ending in"),
        (
            "all_bad.tsv",
            b"acgtcagtcatcgatcgactacgatcgacgatcgacg\t1\n" * 2,
            r"bad.tsv:1: lower-case bases.*0 of 2 rows.*fix: .*lower_case=upper",
        ),
        ("cut.tsv.gz", gzip.compress(line(*TOY[0]).encode() * 500, mtime=0)[:-20], "(?i)truncated"),
        ("latin.tsv", line(*TOY[0]).encode() + b"\xff\xfe\t1\n", "(?i)utf"),
        ("not.parquet", b"PAR1 no", "cannot be read as Parquet"),
    ],
)
def test_invalid_input_is_a_clear_error_and_keeps_the_old_dataset(tmp_path, name, content, message):
    config = toy_config(tmp_path)
    build_dataset([write(tmp_path / "toy.tsv", "".join(line(*row) for row in TOY))], config)
    before = everything(config.dataset.path)
    if content is not None:
        write(tmp_path / name, content)
    with pytest.raises(UserError, match=message):
        build_dataset([str(tmp_path / name)], config)
    assert everything(config.dataset.path) == before
    assert not list(tmp_path.glob(".*"))


def test_missing_column_is_named_with_the_existing_ones(tmp_path):
    pq.write_table(pa.table({"dna": ["x"], "strength": [1.0]}), tmp_path / "a.parquet")
    file = str(tmp_path / "a.parquet")
    with pytest.raises(
        UserError, match=r"no column holds sequences; got columns dna, strength; fix: --sequence-column NAME"
    ):
        build_dataset([file], toy_config(tmp_path))
    pq.write_table(pa.table({"dna": ["A"], "strength": [1.0], "spread": [2.0]}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"ambiguous label column: 'strength' \(.*'spread' \(.*; fix: name it"):
        build_dataset([file], toy_config(tmp_path), columns=Columns("dna"))
    with pytest.raises(UserError, match=r"no column force; it has dna, strength"):
        build_dataset([file], toy_config(tmp_path), columns=Columns("dna", "force"))


def test_impossible_split_sizes_are_refused_with_a_fix(tmp_path):
    file = write(tmp_path / "toy.tsv", "".join(line(*row) for row in TOY))
    with pytest.raises(UserError, match=r"12 rows, but there are only\s+12 promoters; fix: fractions"):
        build_dataset([file], toy_config(tmp_path, "dataset.finetune_valid=10"))


def shell(*arguments):
    return subprocess.run(
        [Path(sys.executable).with_name("duckdb"), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout


def test_duckdb_command_line_opens_and_builds_the_same_dataset(tmp_path):
    """The command line from PyPI is of DuckDB 1.5, the library here of 2.0."""
    config = small_config(tmp_path, "assay.flank=150", "dataset.finetune_valid=0.05", "dataset.finetune_test=0.05",
                          "dataset.pretrain_valid=0.05")  # fmt: skip
    file = write(tmp_path / "toy.tsv", "".join(line(*row) for row in TOY) * 10 + "bad\n")
    built = build_dataset([file], config)
    key = "select key from dataset"
    assert shell("-noheader", "-csv", "-readonly", config.dataset.path, key).strip() == built.info.key
    by_hand = tmp_path / "by_hand.duckdb"
    shell(str(by_hand), "-c", f"set variable input_files = ['{file}']", "-c", ".read sql/build_text.sql")
    assert shell("-noheader", "-csv", "-readonly", str(by_hand), key).strip() == built.info.key
    assert "from 0" in shell(
        "-readonly", config.dataset.path, "select comment from duckdb_columns() where comment is not null"
    )


def test_real_challenge_rows(tmp_path, real_data):
    config = small_config(tmp_path)
    built = build_dataset([str(real_data / "dream_train_7k.tsv")], config)
    assert built.info.promoters == 7369
    assert built.rejects == {}
    assert (built.info.cut, built.info.pretrain_rows) == (13, 1918)
    with open_dataset(config.dataset.path) as connection:
        lengths = connection.execute(
            "select avg((length(insert_of(sequence)) = 80)::int), min(length(insert_of(sequence))), "
            "max(length(insert_of(sequence))), count(*) filter (contains(sequence, 'N')) from promoters"
        ).fetchone()
    assert lengths == (pytest.approx(0.82, abs=0.005), 57, 105, 31)


def test_real_measured_rows(tmp_path, real_data):
    file = str(real_data / "yeast_measured_64k.tsv")
    built = build_dataset([file], small_config(tmp_path / "a"))
    assert built.info.promoters == 62_782
    assert built.rejects == {"expression out of the assay's range": 304}  # -1.9 to 0 and 17 to 19.4
    wider = small_config(tmp_path / "b", "assay.min_expression=-2", "assay.max_expression=20")
    assert build_dataset([file], wider).info.promoters == 63_086


def test_dataset_of_another_version_is_described_with_its_runs(tmp_path):
    file = write(tmp_path / "toy.tsv", GOOD)
    config = toy_config(tmp_path)
    build_dataset([file], config)
    with duckdb.connect(config.dataset.path) as connection:
        connection.execute("alter table dataset drop finetune_train_rows")
        connection.execute("update dataset set key = 'of version 2'")
        connection.execute("insert into runs (run) values ('first'), ('second')")
    with open_dataset(config.dataset.path) as connection, pytest.raises(UserError, match="built by another version"):
        dataset_info(connection)
    with pytest.raises(UserError, match=r"would lose 2 recorded runs \(first, second\)"):
        build_dataset([file], config)
    assert build_dataset([file], config, replace=True).runs_left_out == 2
    with open_dataset(config.dataset.path) as connection:
        assert connection.execute("from runs").fetchall() == []


def test_setting_of_a_built_dataset_cannot_change(tmp_path):
    build_dataset([write(tmp_path / "toy.tsv", GOOD)], config := toy_config(tmp_path))
    with open_dataset(config.dataset.path) as connection:
        info = dataset_info(connection)
    with pytest.raises(UserError, match=r"dataset.seed is 7, but .* was built with 0; for another .*seed=7"):
        as_built(toy_config(tmp_path, "dataset.seed=7"), info)
    with pytest.raises(UserError) as late:
        as_built(toy_config(tmp_path, "dataset.finetune_train=3"), info)
    assert "dataset.finetune_train is 3, but" in str(late.value)
    (again,) = re.findall("promoter-bert build FILES (.*), then promoter-bert shards and train.py", str(late.value))
    assert {"dataset.finetune_train=3", "dataset.path=other.duckdb"} < set(again.split())
    assert config.dataset.path not in again
    with pytest.raises(UserError, match=r"assay.upstream is '.*TTT', but .* was built with"):
        as_built(toy_config(tmp_path, "assay.upstream=ACGTTTTT"), info)
    with pytest.raises(UserError, match=r"dataset.cut_label is max, but .* was built with ; for another"):
        as_built(toy_config(tmp_path, "dataset.cut_label=max"), info)
    # A default is a request, too, and settings that a dataset does not record have their defaults.
    filtered = toy_config(tmp_path / "filtered", "dataset.where=strlen(sequence) > 35")
    build_dataset([str(tmp_path / "toy.tsv")], filtered)
    with open_dataset(filtered.dataset.path) as connection:
        of_filter = dataset_info(connection)
    with pytest.raises(UserError, match=r"dataset.where is , but .* was built with strlen"):
        as_built(toy_config(tmp_path, "dataset.where="), of_filter)
    filtered._applied_overrides = ()
    assert as_built(filtered, info).dataset.where == ""
    # A changed file without a request in this call yields to the settings of the build.
    today = load_config(ROOT / "config.yaml", [f"dataset.path={config.dataset.path}"])
    assert as_built(today, info).dataset == config.dataset


@pytest.mark.parametrize("header", ["sequence\tscore\texpression", "Sequence\tmean\tsd", "id\tsequence\texpression"])
def test_two_tables_joined_in_one_file(tmp_path, header):
    rows = "".join(f"{L}{insert}{R}\t{label}\t{label + 1}\n" for insert, label in TOY)
    first = "sequence\texpression\tscore"
    config = toy_config(tmp_path)
    with pytest.raises(UserError, match=r"a.tsv:14: another header line"):
        build_dataset([write(tmp_path / "a.tsv", f"{first}\n{rows}{header}\n{rows}")], config)
    result = build_dataset([write(tmp_path / "a.tsv", f"{first}\n{rows}{first.upper()}\n{rows}")], config)
    assert result.info.promoters == 24
