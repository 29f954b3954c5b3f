"""Each condition of each audit is broken once, and exactly that audit reports it."""

import re

import duckdb
import pytest

from pipeline.dataset import database
from pipeline.dataset.audit import audit
from pipeline.dataset.build import build_dataset
from pipeline.dataset.database import MARKS, statement
from pipeline.errors import UserError
from tests.conftest import ROOT
from tests.pipeline.dataset.rows.small_tables import bare_config, sequences, write_table
from tests.pipeline.dataset.toy_dataset import GOOD, L, R, toy_config, write

AUDITS = sorted(path.name for path in (ROOT / "sql" / "audits").glob("*.sql"))


def replaced_positions(*positions):
    """The seven training rows of finetune with other positions than 0 to 6."""
    return f"update finetune set position = {list(positions)}[position + 1] where split = 'train'"


GROUPED = "update dataset set split = 'grouped'"
# Promoters 0 and 11 are a test row and a training row.
ONE_CLUSTER = "insert into near_duplicates select insert_of(sequence), 'A', '' from finetune where id in (0, 11)"
EQUAL_ROWS = "update finetune set sequence = (select sequence from finetune where id = 11) where id = 0"

# The toy's labels, descending: 9 9 8 7 7 7 5 ...; the cut is 7, so that six rows are in pretrain, three of them valid.
CORRUPTIONS = {
    "every_row_once.sql": [
        "delete from rejects",
        "insert into rejects from rejects",
    ],
    "clusters_stay_together.sql": [f"{GROUPED}; {ONE_CLUSTER}", f"{GROUPED}; {EQUAL_ROWS}"],
    "given_splits_are_kept.sql": [],  # a dataset of its own, below
    "ids_are_consecutive.sql": [
        "update promoters set id = 7 - id where id in (3, 4)",
        "update promoters set id = null where id = 3",
        "delete from promoters where expression = 5",
    ],
    # One condition is broken, with a cut and sizes that the others find right.
    "pretrain_is_the_top.sql": [
        "update dataset set pretrain_rows = 5; delete from pretrain where split = 'train' and position = 2",
        "update dataset set cut = 5, pretrain_rows = 7; insert into pretrain values (0, '', 5, 'train', 3)",
        "update dataset set cut = 9, pretrain_rows = 2, pretrain_valid_rows = 1; "
        "delete from pretrain where position > 0",
    ],
    "splits_have_their_sizes.sql": [
        "update dataset set finetune_train_rows = 8",
        "update dataset set finetune_valid_rows = 2",
        "update dataset set finetune_test_rows = 3",
        "update dataset set pretrain_valid_rows = 4; insert into pretrain values (0, '', 5, 'valid', 3)",
        "delete from pretrain where split = 'train'",
        "insert into finetune values (0, '', 5, 'other', 0)",
        # As many, with the lowest, the highest, the sum and the sum of squares of 0 to 6, but for one of these.
        replaced_positions(-1, 2, 3, 3, 4, 4, 6),
        replaced_positions(0, 0, 3, 4, 4, 5, 5),
        replaced_positions(0, 0, 1, 2, 5, 5, 6),
        replaced_positions(0, 0, 0, 3, 6, 6, 6),
    ],
    "usable_rows_only.sql": [
        "update promoters set sequence = substring(sequence, 2) where id = 3",
        "update promoters set sequence = left(sequence, -1) where id = 3",
        "update promoters set expression = 'nan' where expression = 9",
        "update promoters set expression = '-inf' where expression < 7",
        f"update promoters set sequence = '{L}ACxGT{R}' where id = 0",
    ],
}
ALLOWED = [
    GROUPED,
    f"{ONE_CLUSTER}; {EQUAL_ROWS}",  # a random split promises nothing
    f"update promoters set sequence = '{L}ACxGT{R}' where id = 3",  # letters are read in every fiftieth row
]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("audited")
    config = toy_config(folder)
    build_dataset([write(folder / "toy.tsv", f"{GOOD}bad\n")], config)
    return config.dataset.path


@pytest.fixture
def connection(dataset):
    """A copy whose splits are tables, so that what is changed in one relation does not change another."""
    with duckdb.connect() as connection:
        connection.execute(f"attach '{dataset}' as built (read_only)")
        for name in ("promoters", "rejects", "near_duplicates", "dataset", "finetune", "pretrain"):
            connection.execute(f"create table {name} as from built.{name}")
        connection.execute(statement("09_sequence_macros.sql"))
        yield connection


def reports(connection):
    return [name for name in AUDITS if connection.execute(statement(f"audits/{name}")).fetchall()]


@pytest.mark.parametrize("change", ["", *ALLOWED])
def test_a_valid_dataset_passes(connection, change):
    connection.execute(change)
    assert reports(connection) == []
    audit(connection)


@pytest.mark.parametrize(("name", "corruption"), [(name, each) for name in AUDITS for each in CORRUPTIONS[name]])
def test_exactly_one_audit_reports_a_broken_condition(connection, name, corruption):
    connection.execute(corruption)
    assert reports(connection) == [name]
    with pytest.raises(UserError, match=f"audit {name}: expected no rows"):
        audit(connection)


GIVEN = [
    "set variable given_rows = [('test', 2, '0'), ('valid', 4, '0'), ('train', 6, '0')]",
    "update pretrain set id = 0 where split = 'valid'",
    "update pretrain set id = 3 where split = 'train' and position = 0",
]


@pytest.mark.parametrize("corruption", ["", *GIVEN])
def test_a_row_outside_its_given_split_is_reported(tmp_path, corruption):
    splits = ["test"] * 2 + ["valid"] * 4 + ["train"] * 6
    lines = (f"{text.rstrip()}\t{split}\n" for text, split in zip(GOOD.splitlines(), splits, strict=True))
    file = write(tmp_path / "given.tsv", "sequence\texpression\tset\n" + "".join(lines))
    config = toy_config(tmp_path, "dataset.split=column", "dataset.split_column=set")
    build_dataset([file], config)
    with duckdb.connect() as connection:
        connection.execute(f"attach '{config.dataset.path}' as built (read_only)")
        for name in ("promoters", "dataset", "finetune", "pretrain"):
            connection.execute(f"create table {name} as from built.{name}")
        connection.execute(corruption)
        reported = connection.execute(statement("audits/given_splits_are_kept.sql")).fetchall()
    assert bool(reported) == bool(corruption)


def test_a_value_of_the_group_column_in_two_splits_is_reported(tmp_path):
    rows = [(bases, row, f"g{row // 2}") for row, bases in enumerate(sequences(12))]
    file = write_table(tmp_path / "grouped.tsv", ("sequence", "expression", "gene"), rows)
    grouped = ("dataset.split=grouped", "dataset.group_column=gene", "dataset.max_mismatches=0")
    config = bare_config(tmp_path, *grouped, "dataset.finetune_valid=0.2", "dataset.finetune_test=0.2")
    build_dataset([file], config)
    query = statement("audits/clusters_stay_together.sql", {"group_name": ", promoters.gene"})
    with duckdb.connect() as connection:
        connection.execute(f"attach '{config.dataset.path}' as built (read_only)")
        for name in ("promoters", "dataset", "finetune", "near_duplicates"):
            connection.execute(f"create table {name} as from built.{name}")
        connection.execute(statement("09_sequence_macros.sql"))
        assert connection.execute(query).fetchall() == []
        connection.execute("delete from near_duplicates")  # the other part of the audit
        connection.execute("update finetune set split = 'other' where id = 11")
        assert len(connection.execute(query).fetchall()) == 1


def test_the_marks_of_the_statements_are_those_of_the_table():
    described = re.findall(r"^\| `(\w+)` \|", (ROOT / "sql" / "README.md").read_text(), re.MULTILINE)
    comments = {text for path in ROOT.glob("sql/**/*.sql") for text in re.findall(r"/\*.*?\*/", path.read_text())}
    assert set(described) == MARKS
    assert comments == {f"/* {mark} */" for mark in MARKS}


def test_an_unknown_mark_is_an_error(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="unknown marks cels"):
        statement("splits/random.sql", {"cels": ", kept_1"})
    write(tmp_path / "x.sql", "select 1/*cels*/")
    monkeypatch.setattr(database, "SQL", tmp_path)
    with pytest.raises(ValueError, match="unknown marks cels"):
        statement("x.sql")
