"""Notes on the rows of a build: examples of rejects, codes for missing values, lengths, unused numbers, leaks."""

import pytest

from pipeline.cli.messages import describe_build, fix_of_leaks
from pipeline.dataset.build import build_dataset
from pipeline.dataset.splits.split_leaks import SplitLeaks
from tests.conftest import small_config
from tests.pipeline.dataset.toy_dataset import L, R, write

INSERT = "ACGTTGCA" * 5


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """600 rows with a column of counts; two short inserts, one long one, two with a gap, and four labels of 99."""
    folder = tmp_path_factory.mktemp("notes")
    labels = {**dict.fromkeys(range(10, 14), 99)}
    inserts = {3: "ACG", 4: INSERT[:19], 5: INSERT[:20], 6: INSERT * 2, 7: INSERT * 2 + "A", 8: "AC-T", 9: "AC.T"}
    lines = [f"{L}{inserts.get(row, INSERT)}{R},{labels.get(row, row % 16)},{row * 7 % 5},n{row}" for row in range(600)]
    text = "\n".join(["sequence,log2_yfp,reads,name", *lines, ""])
    config = small_config(folder, "assay.max_expression=17", "dataset.duplicates=keep")
    return build_dataset([write(folder / "a.csv", text)], config)


def test_few_inserts_of_unusual_length_are_counted(built):
    notes = built.notes
    assert (notes.median_insert, notes.short_inserts, notes.long_inserts) == (40, 2, 1)
    assert any("assay.min_insert=20" in line for line in describe_build(built))
    assert any("assay.max_insert=80" in line for line in describe_build(built))


def test_the_first_reject_of_a_reason_is_shown(built):
    (letters,) = (text for reason, text in built.notes.examples.items() if reason.startswith("letters"))
    assert letters.startswith(f"'-' at {len(L) + 3} in ")
    assert letters.endswith("a.csv:10")
    assert any(f"--dataset {built.dataset}" in line and "from rejects" in line for line in describe_build(built))


def test_a_label_that_few_rows_share_may_be_a_code(built):
    ((reason, code),) = built.notes.codes.items()
    assert (reason in built.rejects, code) == (True, (99, 4))
    assert built.notes.out_of_range == {reason: (0, 4)}
    (line,) = (line for line in describe_build(built) if reason in line)
    assert "0 below the range, 4 above it" in line
    assert line.index("4 rows have 99") < line.index(built.hints[reason])


def test_columns_of_numbers_that_are_not_labels_are_listed(built):
    assert (built.label_column, built.notes.numbers) == ("log2_yfp", ["reads"])


def test_notes_are_not_in_json(built):
    assert "notes" not in built.as_dict()


@pytest.mark.parametrize(
    ("counts", "split", "fix"),
    [
        ((5, 0, 21), "random", "dataset.split=grouped dataset.group_overlap=40"),
        ((21, 0, 20), "random", "dataset.split=grouped"),
        ((0, 21, None), "random", "dataset.split=grouped"),
        ((0, 0, 21), "grouped", "dataset.group_overlap=40"),
        ((20, 20, 20), "random", ""),
        ((900, 900, 900), "column", ""),
        ((None, None, None), "random", ""),
    ],
)
def test_leaks_of_more_than_two_percent_have_a_fix(counts, split, fix):
    assert fix_of_leaks(SplitLeaks(1000, *counts), split) == fix
