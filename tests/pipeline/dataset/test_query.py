import csv
import re
import sys
from collections import Counter
from math import ceil, floor, log2, sqrt
from statistics import fmean, variance

import duckdb
import pytest

from pipeline.cli.dataset import query as query_command
from pipeline.dataset.build import build_dataset
from pipeline.dataset.database import open_dataset, statement
from pipeline.dataset.query import query_names, read_query, run_query, show_table
from pipeline.errors import UserError
from tests.conftest import ROOT
from tests.pipeline.dataset.test_build import shell
from tests.pipeline.dataset.toy_dataset import L, R, line, toy_config, write

QUERIES = sorted(path.name for path in (ROOT / "sql" / "queries").glob("*.sql"))
OF_PREDICTIONS = {
    "calibration.sql",
    "predicted_and_measured.sql",
    "residuals_by_expression.sql",
    "residuals_by_gc.sql",
    "residuals_by_length.sql",
    "typical_error.sql",
    "worst_predictions.sql",
}
EMPTY_WITHOUT_THE_LIKE = {"duplicates.sql", "near_duplicates.sql", "rejects_by_reason.sql", *OF_PREDICTIONS}

# Descending: 14 13 13 13 11 11 8.5 7.5 6 5 4 2; index int(0.4 * 12) = 4 holds an 11: the cut, and six rows are in.
TOY = [
    ("AAAA", 13), ("AAAA", 11), ("CCCC", 4), ("CCCC", 5), ("CCCC", 6), ("GCGC", 13), ("ACGT", 13), ("TTTT", 8.5),
    ("ANNT", 2), ("TATAAA", 14), ("TTTATAG", 11), ("GATTACA", 7.5),
]  # fmt: skip
SUM = 108
WITH_TATA = [14, 11]
WITHOUT_TATA = [13, 11, 4, 5, 6, 13, 13, 8.5, 2, 7.5]

ANSWERS = {
    "bases_by_position.sql": [
        (1, 9, 4 / 9, 3 / 9, 1 / 9, 1 / 9, 0),
        (2, 9, 2 / 9, 5 / 9, 0, 1 / 9, 1 / 9),
        (3, 9, 2 / 9, 3 / 9, 2 / 9, 1 / 9, 1 / 9),
        (4, 9, 2 / 9, 4 / 9, 0, 3 / 9, 0),
    ],
    "duplicates.sql": [(2, 1, 2, 2, sqrt(2)), (3, 1, 2, 2, 1)],
    "gc_against_expression.sql": [
        (0, 5, 9.7, 8.5, 13),
        (0.1, 1, 11, 11, 11),
        (0.25, 1, 7.5, 7.5, 7.5),
        (0.5, 1, 13, 13, 13),
        (1, 4, 7, 4.75, 7.75),
    ],
    "insert_lengths.sql": [
        (4, 9, 0.75, 75.5 / 9, sqrt(variance([13, 11, 4, 5, 6, 13, 13, 8.5, 2]) / 9)),
        (6, 1, 1 / 12, 14, None),
        (7, 2, 1 / 6, 9.25, 1.75),
    ],
    # Of the inserts that hold a 5-mer, the first two are above the cut: 5 5-mers against 3, and 8 different ones.
    "kmer_enrichment.sql": [
        *((kmer, other, 1, 0, log2((2 / 13) / (1 / 11))) for kmer, other in (
            ("ATAAA", "TTTAT"), ("TATAA", "TTATA"), ("TATAG", "CTATA"), ("TTATA", "TATAA"), ("TTTAT", "ATAAA"))),
        *((kmer, other, 0, 1, log2((1 / 13) / (2 / 11))) for kmer, other in (
            ("ATTAC", "GTAAT"), ("GATTA", "TAATC"), ("TTACA", "TGTAA"))),
    ],
    "label_histogram.sql": [
        (2, 1, 0, 0), (4, 1, 0, 0), (5, 1, 0, 0), (6, 1, 0, 0), (7, 1, 0, 0), (8, 1, 0, 0), (11, 2, 2, 0),
        (13, 3, 3, 0), (14, 1, 1, 0),
    ],
    "rejects_by_reason.sql": [
        ("1 column, expected 2", 2, "toy.tsv:13", "bad"),
        ("expression is NaN", 1, "toy.tsv:14", f"{L}ACGT{R}\tnan"),
    ],
    "rows_with_n.sql": [(0, 11, 11 / 12, (SUM - 2) / 11), (2, 1, 1 / 12, 2)],
    # The errors are id - 1: from -1 to 10.
    "typical_error.sql": [
        ("a", "test", 12, sqrt(386 / 12), 4.5, sqrt(variance([label for _, label in TOY]) * 11 / 12)),
    ],
    "tied_labels.sql": [(13, 3, 3 / 12, True, 10 / 12), (11, 2, 2 / 12, True, 10 / 12)],
}  # fmt: skip


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy")
    config = toy_config(folder)
    text = "".join(line(*row) for row in TOY) + f"bad\n{L}ACGT{R}\tnan\nbad\n"
    build_dataset([write(folder / "toy.tsv", text)], config)
    with open_dataset(config.dataset.path, read_only=False) as connection:
        rows = "select 'a' as run, id, 'test' as split, expression + id - 1 as prediction from promoters"
        connection.execute(f"insert into predictions by name {rows}")
    return config.dataset.path


def ask(dataset, query):
    with open_dataset(dataset) as connection:
        result = connection.execute(statement(f"queries/{query}"))
        names = [column for column, *_ in result.description]
        return names, result.fetchall()


@pytest.mark.parametrize("query", QUERIES)
def test_queries_are_described_and_run_in_library_and_command_line(made, query):
    """The command line from PyPI is of DuckDB 1.5, the library here of 2.0."""
    text = statement(f"queries/{query}")
    assert text.startswith("-- ")
    names, rows = ask(made.config.dataset.path, query)
    assert rows or query in EMPTY_WITHOUT_THE_LIKE
    printed = shell("-readonly", made.config.dataset.path, "-csv", "-c", f".read sql/queries/{query}")
    head, *lines = list(csv.reader(printed.splitlines())) or [names]
    assert (head, len(lines)) == (names, len(rows))


@pytest.mark.parametrize("query", sorted(ANSWERS))
def test_query_results_on_twelve_rows_by_hand(toy, query):
    _, rows = ask(toy, query)
    if query == "rejects_by_reason.sql":
        rows = [(reason, n, place.rpartition("/")[2], text) for reason, n, place, text in rows]
    assert len(rows) == len(ANSWERS[query])
    for answer, expected in zip(rows, ANSWERS[query], strict=True):
        assert answer == tuple(pytest.approx(value) if isinstance(value, float) else value for value in expected)


def test_the_effect_of_a_motif_on_either_strand(toy):
    names, rows = ask(toy, "motif_effect.sql")
    answer = [dict(zip(names, row, strict=True)) for row in rows]
    assert answer[0] == {
        "factor": "TATA",
        "site": "TATAAA",
        "other_strand": "TTTATA",
        "promoters_with": 2,
        "mean_with": 12.5,
        "mean_without": pytest.approx(8.3),
        "effect": pytest.approx(4.2),
        "standard_error": pytest.approx(sqrt(variance(WITH_TATA) / 2 + variance(WITHOUT_TATA) / 10)),
    }
    assert {(row["promoters_with"], row["mean_without"], row["effect"]) for row in answer[1:]} == {(0, SUM / 12, None)}


def test_splits_and_their_labels_agree(toy):
    with open_dataset(toy) as connection:
        labels = connection.execute("select split, expression from finetune").fetchall()
    by_split = {split: [e for s, e in labels if s == split] for split in ("train", "valid", "test")}
    assert {split: len(answer) for split, answer in by_split.items()} == {"train": 7, "valid": 3, "test": 2}
    for stage, split, rows, mean, _ in ask(toy, "splits.sql")[1]:
        if stage == "finetune":
            assert (rows, mean) == (len(by_split[split]), pytest.approx(sum(by_split[split]) / rows))
    for value, *shares in ask(toy, "labels_by_split.sql")[1]:
        expected = [sum(e // 1 == value for e in answer) / len(answer) for answer in by_split.values()]
        assert shares == pytest.approx(expected)


def test_the_worst_prediction_comes_first(toy):
    names, rows = ask(toy, "worst_predictions.sql")
    answer = [dict(zip(names, row, strict=True)) for row in rows]
    assert [(row["id"], row["residual"]) for row in answer[:2]] == [(11, -10), (10, -9)]
    assert [(row["id"], row["residual"]) for row in answer[-3:]] == [(0, 1), (2, -1), (1, 0)]


def test_only_the_run_that_finished_last_is_shown(tmp_path):
    """One split of it, and the name of each promoter instead of its sequence."""
    config = toy_config(tmp_path)
    rows = "".join(f"{L}{'ACGT' * 2}{'A' * row}{R}\t{row}\tp{row}\n" for row in range(12))
    build_dataset([write(tmp_path / "toy.tsv", f"sequence\texpression\tname\n{rows}")], config)
    with open_dataset(config.dataset.path, read_only=False) as connection:
        for run, day in (("new", 2), ("old", 1)):
            connection.execute(
                f"insert into runs by name select '{run}' as run, timestamp '2026-01-0{day}' as finished"
            )
            for split, error in (("test", 1), ("valid", 9)):
                values = (
                    f"select '{run}' as run, id, '{split}' as split, expression + {error} as prediction from promoters"
                )
                connection.execute(f"insert into predictions by name {values}")
    for query in ("worst_predictions.sql", "calibration.sql"):
        names, rows = ask(config.dataset.path, query)
        assert {row[:2] for row in rows} == {("new", "test")}
        assert len(rows) == 12
    names, rows = ask(config.dataset.path, "worst_predictions.sql")
    worst = [dict(zip(names, row, strict=True)) for row in rows]
    assert {row["name"] for row in worst} == {f"p{row['expression']:.0f}" for row in worst}
    assert all(row["bases"] == 8 + row["expression"] for row in worst)


def test_residuals_equal_the_mean_of_each_group(toy):
    """The toy's residual is 1 - id; its labels run from 2 to 14, so that the steps are 1 and 0.5."""
    with open_dataset(toy) as connection:
        rows = connection.execute("select id, insert_of(sequence), expression from promoters").fetchall()
    for query, group in (
        ("residuals_by_length.sql", lambda insert, _: len(insert)),
        ("residuals_by_gc.sql", lambda insert, _: gc_step(insert)),
        ("residuals_by_expression.sql", lambda _, label: floor(label + 0.5)),
    ):
        groups = {}
        for number, insert, label in rows:
            groups.setdefault(group(insert, label), []).append(1 - number)
        expected = [
            ("a", "test", step, len(group), fmean(group), sqrt(variance(group) / len(group)) if group[1:] else None,
             *quartiles(group)) for step, group in sorted(groups.items())
        ]  # fmt: skip
        assert ask(toy, query)[1] == [tuple(pytest.approx(value) for value in row) for row in expected], query


def gc_step(insert):
    return floor(20 * sum(map(insert.count, "GC")) / sum(map(insert.count, "ACGT"))) / 20


def quartiles(values):
    values = sorted(values)
    places = [share * (len(values) - 1) for share in (0.25, 0.75)]
    return [values[floor(p)] + (p - floor(p)) * (values[ceil(p)] - values[floor(p)]) for p in places]


def test_predicted_and_measured_values_are_counted_per_cell(toy):
    with open_dataset(toy) as connection:
        rows = connection.execute("select id, expression from promoters").fetchall()
    cells = Counter((floor(2 * label + 0.5) / 2, floor(2 * (label + number - 1) + 0.5) / 2) for number, label in rows)
    expected = sorted(("a", "test", 0.5, *cell, n) for cell, n in cells.items())
    assert ask(toy, "predicted_and_measured.sql")[1] == expected


def test_calibration_takes_equal_groups_in_the_order_of_predictions(toy):
    """Fewer promoters than groups: each is one."""
    with open_dataset(toy) as connection:
        rows = connection.execute("select expression + id - 1, id, expression from promoters").fetchall()
    expected = [
        ("a", "test", place, 1, prediction, label, None) for place, (prediction, _, label) in enumerate(sorted(rows), 1)
    ]
    assert ask(toy, "calibration.sql")[1] == expected


@pytest.mark.parametrize(("columns", "vertical"), [(40, False), (20, True)])
def test_a_table_wider_than_the_terminal_is_vertical(columns, vertical, monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(columns))
    values = f"values ('ACGT{chr(27)}', 1.5), (null, 2.5), ('T', 3.5)"
    show_table(duckdb.sql(f"select * from ({values}) as t(sequence, y)"), 2)
    out = capsys.readouterr().out
    assert ("row 1" in out) == vertical
    if vertical:
        assert out.splitlines() == [
            "row 1", "  sequence  ACGT\\x1b", "  y         1.5", "row 2", "  sequence  NULL", "  y         2.5",
            "more rows: --rows, at present 2",
        ]  # fmt: skip


def test_files_are_queried_without_a_dataset(tmp_path, capfd):
    """For example the metrics of a run, at any place of its dataset."""
    nowhere, file = str(tmp_path / "dataset.duckdb"), write(tmp_path / "metrics.jsonl", '{"step": 7}\n')
    assert run_query(nowhere, f"select step + 1 as n from read_json('{file}')", "csv") == 1
    assert capfd.readouterr().out == '"n"\n8\n'
    for select, message in (
        ("from promoters", "no such dataset"),
        (f"from '{file}'", "no such dataset"),
        (f"select * from read_json('{file}') join promoters using (step)", "no such dataset"),
        (f"select * from read_json('{tmp_path}/none.jsonl')", "No files found"),
        (f"copy (select * from read_json('{file}')) to '{tmp_path}/copied.csv'", "expected a select"),
    ):
        with pytest.raises(UserError, match=message):
            run_query(nowhere, select, "csv")
    with pytest.raises(UserError, match=r"no folder .*typo"):
        run_query(nowhere, "select 1", "csv", tmp_path / "typo" / "out.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]
    for form in ("csv", "json", "parquet"):
        rows = f"select unnest([step, step + 1]) from read_json('{file}')"
        assert run_query(nowhere, rows, form, tmp_path / f"out.{form}") == 2


def test_enrichment_equals_a_plain_kmer_count(made):
    """Inserts longer than the counted substrings, some with Ns; the test counts k-mers one by one."""
    with open_dataset(made.config.dataset.path) as connection:
        rows = connection.execute("select insert_of(sequence), expression >= cut from promoters, dataset").fetchall()
    counts = {True: Counter(), False: Counter()}
    for insert, is_top in rows:
        kmers = (insert[i : i + 5] for i in range(len(insert) - 4))
        counts[is_top].update(kmer for kmer in kmers if "N" not in kmer)
    answer = ask(made.config.dataset.path, "kmer_enrichment.sql")[1]
    assert {kmer for kmer, *_ in answer} == counts[True].keys() | counts[False].keys()
    totals = {is_top: counts[is_top].total() + len(answer) for is_top in counts}
    for kmer, _, top, rest, ratio in answer:
        assert (top, rest) == (counts[True][kmer], counts[False][kmer])
        assert ratio == pytest.approx(log2((top + 1) / totals[True] / ((rest + 1) / totals[False])))
    assert [ratio for *_, ratio in answer] == sorted((ratio for *_, ratio in answer), reverse=True)


def test_bases_by_position_equal_a_plain_count(made):
    with open_dataset(made.config.dataset.path) as connection:
        inserts = connection.execute("select insert_of(sequence) from promoters").fetchall()
    inserts = [insert for (insert,) in inserts if len(insert) == 80]
    answer = ask(made.config.dataset.path, "bases_by_position.sql")[1]
    assert [position for position, *_ in answer] == list(range(1, 81))
    for position, promoters, *shares in answer:
        letters = Counter(insert[position - 1] for insert in inserts)
        assert promoters == len(inserts)
        assert shares == pytest.approx([letters[base] / promoters for base in "ACGTN"])


def test_queries_are_found_by_name_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = query_names()
    assert [f"{name}.sql" for name in names] == QUERIES
    for name in names:
        assert read_query(name) == read_query(f"sql/queries/{name}.sql") == statement(f"queries/{name}.sql")
    listed = re.search(r"Queries: ([^.]*)\.", query_command.__doc__)[1]
    assert re.split(r",\s+", listed) == names
    for wrong in ("split", "split.sql"):
        with pytest.raises(UserError, match=r"splits, tied_labels"):
            read_query(wrong)
    (tmp_path / "own.sql").write_text("select 1")
    assert (read_query("own.sql"), read_query("select 2")) == ("select 1", "select 2")


def test_an_unknown_relation_is_answered_with_the_relations(tmp_path):
    with duckdb.connect(str(tmp_path / "some.duckdb")) as connection:
        connection.execute("create table promoters as select 1 as id; create view finetune as from promoters")
    for select, problem in (
        ("select 1 from nope", "nope: no such relation; expected one of finetune, promoters"),
        ("with a as (select 1) from a, promoter", "promoter: no such relation; .*; did you mean promoters\\?"),
        ("select length(nothing(id)) from promoters", "nothing does not exist"),
        ("select nothing from promoters, duckdb_tables()", "nothing"),
    ):
        with pytest.raises(UserError, match=problem) as error:
            run_query(str(tmp_path / "some.duckdb"), select, "csv")
        assert "pg_" not in str(error.value)
