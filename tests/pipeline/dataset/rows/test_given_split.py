"""Given splits: kept exactly, understood in any case, and never pretrained on outside the training rows."""

import random

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.cli.messages import describe_build
from pipeline.dataset.build import build_dataset
from pipeline.dataset.database import open_dataset
from pipeline.dataset.query import answer
from pipeline.errors import UserError
from pipeline.reporting.dataset_page import threshold_text
from tests.pipeline.dataset.rows.small_tables import bare_config, select, sequences, write_table

WORDS = {
    "train": ("train", "Training", "TRAIN"),
    "valid": ("val", "Valid", "VALIDATION", "dev"),
    "test": ("test", "Testing"),
}
HEADER = ("seq", "activity", "set")
SPLITS_OF_PRETRAIN = """
select pretrain.split, finetune.split, count(*) from pretrain join finetune using (id) group by all order by 1
"""


def draw_rows(seed, weights=(6, 2, 2)):
    """Draw rows with repeated sequences and labels; (sequence, label, word) and its split."""
    rng = random.Random(seed)
    pool = sequences(60, seed)
    splits = rng.choices(("train", "valid", "test"), weights, k=150)
    return [(rng.choice(pool), rng.randrange(40) / 4, rng.choice(WORDS[split]), split) for split in splits]


def check_pretraining(config, rows, fraction=0.2):
    """The top fraction of the training rows, validated on validation rows at or above the same threshold."""
    labels = sorted((label for _, label, _, split in rows if split == "train"), reverse=True)
    cut = labels[int(fraction * len(labels))]
    expected = {"train": sum(label >= cut for label in labels)}
    expected["valid"] = sum(label >= cut for _, label, _, split in rows if split == "valid")
    found = select(config, SPLITS_OF_PRETRAIN)
    assert found == [(split, split, expected[split]) for split in ("train", "valid")]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("duplicates", ["keep", "average"])
def test_given_splits_are_kept_exactly(tmp_path, seed, duplicates):
    rows = draw_rows(seed)
    file = write_table(tmp_path / "a.tsv", HEADER, [row[:3] for row in rows])
    config = bare_config(
        tmp_path, "dataset.split=column", "dataset.split_column=SET", f"dataset.duplicates={duplicates}"
    )
    built = build_dataset([file], config)
    found = select(config, "select sequence, expression, split from finetune order by all")
    if duplicates == "keep":
        assert found == sorted((sequence, label, split) for sequence, label, _, split in rows)
        check_pretraining(config, rows)
        repeated = {row[0] for row in rows if row[3] == "train"}
        assert built.repeated_held_out == sum(row[3] != "train" and row[0] in repeated for row in rows)
    else:  # within each split, never across
        groups = {}
        for sequence, label, _, split in rows:
            groups.setdefault((sequence, split), []).append(label)
        assert sorted((row[0], row[2]) for row in found) == sorted(groups)
        assert all(label == pytest.approx(sum(values) / len(values))
                   for sequence, label, split in found for values in [groups[sequence, split]])  # fmt: skip
    assert select(config, "select count(*) from pretrain join finetune using (id) where finetune.split = 'test'") == [
        (0,)
    ]


def test_one_file_per_split_equals_a_column(tmp_path):
    rows = draw_rows(5)
    file = write_table(tmp_path / "a.tsv", HEADER, [row[:3] for row in rows])
    column = bare_config(tmp_path / "column", "dataset.split=column", "dataset.split_column=set")
    build_dataset([file], column)
    files = {}
    for split in ("train", "valid", "test"):
        parts = [[row[:3] for row in rows if row[3] == split][part::2] for part in range(2)]
        for number, part in enumerate(parts):
            write_table(tmp_path / f"{split}{number}.tsv", HEADER, part)
        files[split] = [str(tmp_path / f"{split}?.tsv")]
    single = bare_config(tmp_path / "files")
    built = build_dataset([], single, split_files=files)
    everything = "select finetune.*, promoters.set from finetune join promoters using (id) order by id"
    assert select(single, everything) == select(column, everything)
    assert built.info.key == select(column, "select key from dataset")[0][0]
    assert build_dataset([], single, split_files=files).reused


def test_values_of_folds_and_chromosomes(tmp_path):
    rows = [(sequence, i % 7, i % 10) for i, sequence in enumerate(sequences(100))]
    file = write_table(tmp_path / "a.csv", ("seq", "activity", "fold"), rows, ",")
    given = ["dataset.split=column", "dataset.split_column=fold", "dataset.valid_values=[8]"]
    config = bare_config(tmp_path, *given, "dataset.test_values=[9, 0]")
    build_dataset([file], config)
    found = select(config, "select fold, split from promoters join finetune using (id) group by all order by 1")
    assert found == [(n, {8: "valid", 9: "test", 0: "test"}.get(n, "train")) for n in range(10)]
    for other, problem in [
        ("dataset.test_values=[11]", r"no row has the value '11'.*'0' \(10 rows\)"),
        ("dataset.train_values=[1, 2]", r"unknown values '0', '3'.*'0' \(10 rows\)"),
        ("dataset.test_values=[8]", "'8' is a value of two splits"),
        ("dataset.valid_from_train=0.1", "gives 10 validation rows"),
    ]:
        with pytest.raises(UserError, match=problem):
            build_dataset([file], bare_config(tmp_path / "other", *given, other))


def test_missing_splits(tmp_path):
    words = ["train"] * 40 + ["", "NA"]
    rows = [(sequence, i % 7, word) for i, (sequence, word) in enumerate(zip(sequences(42), words, strict=True))]
    file = write_table(tmp_path / "a.tsv", HEADER, rows)
    given = ["dataset.split=column", "dataset.split_column=set"]
    with pytest.raises(UserError, match=r"no validation rows.*dataset.valid_from_train=0.1"):
        build_dataset([file], bare_config(tmp_path, *given))
    config = bare_config(tmp_path, *given, "dataset.valid_from_train=0.25")
    built = build_dataset([file], config)
    assert built.rejects == {"no value in the column of splits": 2}
    assert built.info.split_rows["finetune/train"] == 30
    assert (built.info.finetune_valid_rows, built.info.finetune_test_rows) == (10, 0)
    assert select(
        config, "select count(*) from pretrain join finetune using (id) where pretrain.split <> finetune.split"
    ) == [(0,)]
    with pytest.raises(UserError, match="no training rows; got train 0, valid 0, test 42"):
        build_dataset([], bare_config(tmp_path / "c"), split_files={"test": [file]})
    with pytest.raises(UserError, match="no column is named"):
        build_dataset([file], bare_config(tmp_path / "d", "dataset.split=column"))
    with pytest.raises(UserError, match="split_column 'set' has no effect with split 'random'"):
        bare_config(tmp_path, "dataset.split_column=set")
    with pytest.raises(UserError, match=r"valid_values \['8'\] has no effect with split 'random'"):
        bare_config(tmp_path, "dataset.valid_values=[8]")
    with pytest.raises(UserError, match="valid_from_train=40: leaves none of the 40 training rows"):
        build_dataset([file], bare_config(tmp_path / "e", *given, "dataset.valid_from_train=40"))
    with pytest.raises(UserError, match="split_column=activity: holds labels"):
        build_dataset([file], bare_config(tmp_path, "dataset.split=column", "dataset.split_column=activity"))
    few = build_dataset([file], bare_config(tmp_path / "f", *given, "dataset.valid_from_train=0.01"))
    assert "build again with dataset.valid_from_train=0.1" in " ".join(describe_build(few))


@pytest.mark.parametrize(("value", "fix"), [("test", ""), ("train", "dataset.valid_from_train=0.1, or ")])
def test_a_column_of_one_value_suggests_a_random_split_that_builds(tmp_path, value, fix):
    file = write_table(
        tmp_path / "a.tsv", HEADER, [(sequence, i % 7, value) for i, sequence in enumerate(sequences(40))]
    )
    given = ["dataset.split=column", "dataset.split_column=set"]
    with pytest.raises(UserError) as error:
        build_dataset([file], bare_config(tmp_path, *given))
    overrides = "dataset.split=random dataset.split_column="
    assert str(error.value).endswith(f"all 40 rows have the value {value!r}; fix: {fix}{overrides}")
    built = build_dataset([file], bare_config(tmp_path, *given, *overrides.split()))
    assert built.info.finetune_valid_rows > 0


def test_one_error_names_all_settings_of_another_split_and_overrides_that_empty_them(tmp_path):
    given = ["dataset.split=column", "dataset.split_column=fold", "dataset.valid_values=[8]", "dataset.test_values=[9]"]
    with pytest.raises(UserError) as error:
        bare_config(tmp_path, *given, "dataset.split=grouped")
    message = str(error.value)
    assert all(text in message for text in ("'fold'", "['8']", "['9']", "fix: dataset.split=column, or "))
    overrides = "dataset.split=grouped dataset.split_column= dataset.valid_values= dataset.test_values="
    assert message.split(", or ")[-1].startswith(overrides)
    switched = bare_config(tmp_path, *given, *overrides.split()).dataset
    assert (switched.split, switched.valid_values, switched.test_values) == ("grouped", [], [])
    groups = bare_config(tmp_path, "dataset.split=grouped", "dataset.group_overlap=40").dataset
    assert groups.switch_split("random") == "dataset.split=random dataset.group_overlap=0"


def test_pretraining_without_given_validation_rows_above_the_threshold(tmp_path):
    """Training rows are taken for the validation of pretraining then, as with a random split."""
    rows = [(sequence, 9 - i % 10, "train") for i, sequence in enumerate(sequences(100))]
    rows += [(sequence, -1, "valid") for sequence in sequences(10, 1)]
    config = bare_config(tmp_path, "dataset.split=column", "dataset.split_column=set", "dataset.pretrain_valid=5")
    build_dataset([write_table(tmp_path / "a.tsv", HEADER, rows)], config)
    found = select(config, SPLITS_OF_PRETRAIN)
    assert found == [("train", "train", 25), ("valid", "train", 5)]


def test_validation_rows_of_pretraining_are_limited(tmp_path):
    rows = draw_rows(7, (5, 5, 1))
    file = write_table(tmp_path / "a.tsv", HEADER, [row[:3] for row in rows])
    config = bare_config(
        tmp_path, "dataset.split=column", "dataset.split_column=set", "dataset.pretrain_valid_at_most=3"
    )
    info = build_dataset([file], config).info
    assert info.pretrain_valid_rows == 3
    assert select(config, "select split, count(*), max(position) from pretrain group by all order by 1") == [
        ("train", info.pretrain_rows - 3, info.pretrain_rows - 4),
        ("valid", 3, 2),
    ]
    copied = duckdb.sql(f"from '{tmp_path}/dataset.parquet/*.parquet' where pretrain_split is not null")
    counts = copied.aggregate("pretrain_split, count(*)").order("pretrain_split").fetchall()
    assert counts == [("train", info.pretrain_rows - 3), ("valid", 3)]


@pytest.mark.parametrize("kind", ["tsv", "parquet"])
def test_one_number_is_one_value_however_it_is_written(tmp_path, kind):
    words = ["1", "8", "8.0", "9 "]
    columns = {"seq": sequences(40), "activity": [i % 7 for i in range(40)], "set": [words[i % 4] for i in range(40)]}
    file = str(tmp_path / f"a.{kind}")
    if kind == "parquet":
        pq.write_table(pa.table(columns), file)
    else:
        write_table(tmp_path / "a.tsv", columns, zip(*columns.values(), strict=True))
    given = ["dataset.split=column", "dataset.split_column=set", "dataset.valid_values=[8]"]
    config = bare_config(tmp_path, *given, "dataset.test_values=['9.0']")
    build_dataset([file], config)
    splits = dict(zip(words, ("train", "valid", "valid", "test"), strict=True))
    found = select(config, "select sequence, split from finetune")
    assert sorted(found) == sorted((s, splits[w]) for s, w in zip(columns["seq"], columns["set"], strict=True))


def test_a_second_label_is_no_split(tmp_path):
    rows = [(sequence, i % 4, i % 3) for i, sequence in enumerate(sequences(60))]
    file = write_table(tmp_path / "a.tsv", ("seq", "a", "fold"), rows)
    given = ["dataset.split=column", "dataset.split_column=fold", "dataset.valid_values=[1]", "dataset.test_values=[2]"]
    with pytest.raises(UserError, match="split_column=fold: holds labels"):
        build_dataset([file], bare_config(tmp_path, *given, "dataset.labels=[a, fold]"))


def test_files_of_splits_are_not_grouped(tmp_path):
    file = write_table(tmp_path / "a.tsv", ("seq", "activity"), [(s, 1) for s in sequences(20)])
    config = bare_config(tmp_path, "dataset.split=grouped")
    with pytest.raises(UserError, match="the files give the split"):
        build_dataset([], config, split_files={"train": [file]})
    with pytest.raises(UserError, match=r"no training rows.*fix: --train FILE"):
        build_dataset([], bare_config(tmp_path), split_files={"valid": [file]})


def test_rows_around_the_threshold(tmp_path):
    """The threshold of a given split is taken from its training rows; test rows above it are held out."""
    rows = [(sequence, i % 20 / 2, "train") for i, sequence in enumerate(sequences(40))]  # each label twice
    rows += [(sequence, (19 - i) / 2, "valid") for i, sequence in enumerate(sequences(5, 1))]
    rows += [(sequence, 9 - i, "test") for i, sequence in enumerate(sequences(4, 2))]
    given = ["dataset.split=column", "dataset.split_column=set"]
    config = bare_config(tmp_path, *given, "dataset.top_fraction=0.2")
    built = build_dataset([write_table(tmp_path / "a.tsv", HEADER, rows)], config)
    # The label at index int(0.2 x 40) of the training labels 9.5 9.5 9 9 8.5 8.5 8 8 7.5 7.5 ... is 7.5.
    threshold = built.threshold
    assert (threshold.cut, threshold.candidates, threshold.top, threshold.extra_ties) == (7.5, 40, 10, 1)
    assert (threshold.above, threshold.used, threshold.valid, threshold.held_out) == (17, 15, 5, 2)
    assert "threshold" not in built.as_dict()
    with open_dataset(config.dataset.path) as connection:
        histogram = answer(connection, "label_histogram")
    assert (sum(histogram["pretrained_on"]), sum(histogram["held_out_above"])) == (15, 2)
    text = threshold_text(threshold, "promoter")
    for part in ("from the 40 training promoters. 10 of them (25 %)", "(1 more)", "2 other promoters at or"):
        assert part in text
