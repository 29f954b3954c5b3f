"""Grouped splits and the report of what is left between training and held-out rows, against brute force."""

import itertools
import json

import duckdb
import numpy as np
import pytest

from pipeline.cli.messages import describe_build, describe_leaks
from pipeline.dataset.build import build_dataset
from pipeline.dataset.database import open_dataset
from pipeline.dataset.splits import split_leaks
from pipeline.dataset.splits.insert_rows import reserve_workspace
from pipeline.dataset.splits.split_leaks import SplitLeaks, examine_dataset
from pipeline.errors import UserError
from tests.conftest import small_config
from tests.pipeline.dataset.toy_dataset import L, R, line, write
from tests.pipeline.near_duplicates.strands import reverse_complement
from tests.pipeline.near_duplicates.test_pairs import near
from tests.pipeline.near_duplicates.test_runs import runs_of

RUN = 40


@pytest.fixture(scope="module")
def inserts():
    """Make 240 rows: tiles of regions, reverse complements, near-duplicates, equal rows and unrelated inserts."""
    random = np.random.default_rng(11)

    def draw(length):
        return "".join(random.choice(list("ACGT"), length))

    regions = [draw(130) for _ in range(8)]
    tiles = [region[start : start + 80] for region in regions for start in range(0, 51, 10)]
    singles = [draw(80) for _ in range(120)]
    near_by = [insert[:30] + "A" + insert[31:] for insert in singles[:20]]
    shorter = [reverse_complement(insert[:40] + insert[41:]) for insert in singles[20:30]]
    other_strand = [reverse_complement(insert) for insert in (*singles[30:60], *tiles[:6])]
    return [*tiles, *singles, *near_by, *shorter, *other_strand, *singles[60:66]]


def table(tmp_path, inserts):
    genes = [f"gene{row % 50}" if row % 3 == 0 else "" for row in range(len(inserts))]
    rows = (
        f"{L}{insert}{R}\t{row % 17}\t{gene}\n" for row, (insert, gene) in enumerate(zip(inserts, genes, strict=True))
    )
    return write(tmp_path / "rows.tsv", "sequence\texpression\tgene\n" + "".join(rows))


def split_of(config):
    with open_dataset(config.dataset.path) as connection:
        return connection.execute(
            "select insert_of(finetune.sequence), split, gene from finetune join promoters using (id) order by id"
        ).fetchall()


def leaks_by_definition(rows):
    train = [insert for insert, split, _ in rows if split == "train"]
    runs = set().union(*(runs_of(insert, RUN) for insert in train))
    held_out = [insert for insert, split, _ in rows if split != "train"]
    return SplitLeaks(
        len(held_out),
        sum(any(near(insert, other, 2) for other in train) for insert in held_out),
        sum(reverse_complement(insert) in train for insert in held_out),
        sum(not runs.isdisjoint(runs_of(insert, RUN)) for insert in held_out),
    )


@pytest.mark.parametrize(
    "overrides",
    [
        ("dataset.split=random",),
        ("dataset.split=grouped",),
        ("dataset.split=grouped", "dataset.group_overlap=40"),
        ("dataset.split=grouped", "dataset.group_overlap=25", "dataset.group_column=gene"),
    ],
)
def test_splits_share_nothing_that_they_promise_and_the_report_is_exact(tmp_path, inserts, overrides):
    config = small_config(tmp_path, *overrides, "dataset.finetune_test=0.15", "dataset.finetune_valid=0.1")
    built = build_dataset([table(tmp_path, inserts)], config)
    rows = split_of(config)
    assert built.leaks == leaks_by_definition(rows) == examine_dataset(config.dataset.path)
    assert (built.info.finetune_test_rows, built.info.finetune_valid_rows) == (36, 24)
    assert json.loads(json.dumps(built.as_dict()))["leaks"]["held_out"] == 60
    assert any(line.startswith("held out   of 60 rows, ") for line in describe_build(built))
    if overrides == ("dataset.split=random",):
        assert min(built.leaks.near_duplicates, built.leaks.reverse_complements, built.leaks.shared_runs) > 5
        return
    by_split = {name: [row for row in rows if row[1] == name] for name in ("test", "valid", "train")}
    overlap, by_gene = config.dataset.group_overlap, bool(config.dataset.group_column)
    for first, second in itertools.combinations(by_split.values(), 2):
        assert not any(near(a, b, 2) for a, _, _ in first for b, _, _ in second)
        if overlap:
            runs = (set().union(*(runs_of(insert, overlap) for insert, _, _ in part)) for part in (first, second))
            assert set.isdisjoint(*runs)
        if by_gene:
            assert not {gene for *_, gene in first if gene} & {gene for *_, gene in second if gene}


def test_groups_do_not_depend_on_memory_or_order(tmp_path, inserts):
    settings = "dataset.split=grouped", "dataset.group_overlap=40", "dataset.finetune_test=0.15"
    results = set()
    for number, memory in enumerate(("40MB", None)):
        rows = [line(insert, len(insert) % 17) for insert in inserts]
        file = write(tmp_path / f"{number}.tsv", "".join(rows[::-1] if number else rows))
        results.add(
            build_dataset([file], small_config(tmp_path / str(number), *settings), memory_limit=memory).info.key
        )
    assert len(results) == 1


def test_clusters_fill_the_splits_where_single_rows_do_not(tmp_path):
    random = np.random.default_rng(12)
    singles = ["".join(random.choice(list("ACGT"), 80)) for _ in range(40)]
    rows = "".join(line(insert, 5) for single in singles for insert in (single, reverse_complement(single)))
    sizes = "dataset.finetune_test=0.2", "dataset.finetune_valid=0.2"
    built = build_dataset([write(tmp_path / "a.tsv", rows)], small_config(tmp_path, "dataset.split=grouped", *sizes))
    assert built.info.split_rows["finetune/test"] == built.info.split_rows["finetune/valid"] == 16
    assert built.leaks == SplitLeaks(32, 0, 0, 0)


def test_a_run_that_most_inserts_share_is_named(tmp_path):
    random = np.random.default_rng(13)
    inserts = ["".join(random.choice(list("ACGT"), 80)) for _ in range(100)]
    constant = "ACGGTACATTGACCA"
    inserts[:60] = [constant + insert for insert in inserts[:60]]
    settings = "dataset.split=grouped", "dataset.group_overlap=15", "dataset.finetune_test=0.1"
    file = write(tmp_path / "a.tsv", "".join(line(insert, 5) for insert in inserts))
    built = build_dataset([file], small_config(tmp_path, *settings))
    assert (built.largest_cluster.rows, built.largest_cluster.run, built.largest_cluster.run_rows) == (60, constant, 60)
    assert any(f"60 rows; 60 rows share {constant}" in line for line in describe_build(built))


def test_what_was_not_examined_is_said(tmp_path, inserts, monkeypatch):
    monkeypatch.setattr(split_leaks, "MAX_BUILD_ROWS", 100)
    file = table(tmp_path, inserts)
    expected = {
        ("dataset.split=random",): (None, None, None),
        ("dataset.split=grouped",): (0, 0, None),
        ("dataset.split=grouped", "dataset.group_overlap=40"): (0, 0, 0),
    }
    for overrides, (near_duplicates, strands, runs) in expected.items():
        config = small_config(tmp_path, *overrides, "dataset.finetune_test=0.15")
        leaks = build_dataset([file], config, replace=True).leaks
        assert leaks == SplitLeaks(leaks.held_out, near_duplicates, strands, runs)
        text = describe_leaks(leaks, config.dataset.path)
        assert ("not examined" in text) == (runs is None)
        assert ("near-duplicates" in text) == (near_duplicates is None)


def interrupt_search(connection):
    with reserve_workspace(connection):
        reader = connection.sql("from range(1_000_000)").to_arrow_reader(10)
        reader.read_next_batch()
        raise KeyboardInterrupt


def test_an_error_while_inserts_are_read_is_not_hidden():
    """The connection of an open reader refuses statements."""
    with duckdb.connect() as connection, pytest.raises(KeyboardInterrupt):
        interrupt_search(connection)


def test_settings_of_groups_are_checked(tmp_path, inserts):
    with pytest.raises(UserError, match="group_overlap: expected 0, or 15 to 500 bases"):
        small_config(tmp_path, "dataset.split=grouped", "dataset.group_overlap=14")
    with pytest.raises(UserError, match="need split=grouped"):
        small_config(tmp_path, "dataset.group_overlap=40")
    file = table(tmp_path, inserts)
    for column, problem in (("expression", "holds sequences or labels"), ("region", "region")):
        with pytest.raises(UserError, match=problem):
            build_dataset([file], small_config(tmp_path, "dataset.split=grouped", f"dataset.group_column={column}"))
