"""Shards of several labels: their bytes, key, index and preview; one label stays as it was."""

import io
import json

import numpy as np
import pytest
import webdataset

from pipeline.dataset.database import open_dataset
from pipeline.errors import UserError
from pipeline.shards.index import parse_index, read_index, serialize_index, shard_key
from pipeline.shards.preview import peek
from pipeline.shards.records import Record, parse_record, serialize_record
from pipeline.shards.verify import verify_shards
from pipeline.tokens.kmers import Ragged
from tests.pipeline.shards.shard_files import signed
from tests.several_labels import LABELS, make_two_labels


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    return make_two_labels(tmp_path_factory.mktemp("two"), 250)


def test_plain_webdataset_reads_the_labels_of_the_dataset(two):
    columns = ", ".join(f'"{name}"' for name in LABELS)
    with open_dataset(two.config.dataset.path) as connection:
        rows = connection.execute(f"select id, {columns} from finetune where split = 'train' order by id").fetchall()
    files = [str(two.shards / shard.file) for shard in read_index(two.shards).splits["finetune/train"]]
    records = list(webdataset.WebDataset(files, shardshuffle=False, empty_check=False))
    arrays = [np.load(io.BytesIO(record["expression.npy"])) for record in records]
    assert {array.dtype for array in arrays} == {np.dtype(np.float32)}
    ids = np.concatenate([np.load(io.BytesIO(record["id.npy"])) for record in records])
    table = np.array(rows, float)
    assert ids.tolist() == table[:, 0].tolist()
    assert np.concatenate(arrays).shape == (len(rows), 2)
    np.testing.assert_allclose(np.concatenate(arrays), table[:, 1:], rtol=1e-6)
    assert np.isnan(table[:, 1:]).any()


def test_index_holds_names_and_scales_of_the_present_training_labels(two):
    index = read_index(two.shards)
    columns = ", ".join(f'"{name}"' for name in LABELS)
    with open_dataset(two.config.dataset.path) as connection:
        rows = connection.execute(f"select {columns} from finetune where split = 'train'").fetchall()
    labels = np.array(rows, float)
    assert index.labels == LABELS
    assert index.label_mean == pytest.approx(np.nanmean(labels, 0).tolist(), abs=1e-5)
    assert index.label_sd == pytest.approx(np.nanstd(labels, 0).tolist(), abs=1e-5)
    assert verify_shards(two.shards).rows == sum(shard.rows for shard in index.shards)
    promoter = peek(two.shards, index, promoters=40)
    assert all(list(row.expression) == LABELS for row in promoter)
    assert any(None in row.expression.values() for row in promoter)


def test_one_label_has_no_names_in_index_and_key(made, two):
    index = read_index(made.shards)
    assert (index.labels, index.label_count) == ([], None)
    assert "labels" not in json.loads((made.shards / "index.json").read_text())
    assert index.key == shard_key(index.dataset_key, made.config)
    keys = {shard_key("x", two.config, names) for names in ([], ["A", "B"], ["B", "A"], ["A", "B", "C"])}
    assert len(keys) == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": ["A score"]}, "labels: expected"),
        ({"labels": ["B", "B"]}, "labels: expected"),
        ({"labels": ["B", "A score"]}, "key: expected"),
        ({"labels": []}, "label_mean: expected"),
        ({"labels": 3}, "labels: expected"),
        ({"labels": ["A score", 5]}, r"labels\[1\]: expected"),
        ({"label_mean": 1.0}, "label_mean: expected"),
        ({"label_mean": [1.0]}, "label_mean: expected"),
        ({"label_sd": [1.0, -1.0]}, "label_sd: expected"),
        ({"label_sd": [1.0, None]}, "label_sd: expected"),
    ],
)
def test_invalid_labels_of_an_index_are_named(two, changes, message):
    values = json.loads((two.shards / "index.json").read_text()) | changes
    with pytest.raises(UserError, match=f"index.json: {message}"):
        parse_index(signed(values), "index.json")


def test_an_index_is_read_as_it_was_written(two):
    index = read_index(two.shards)
    assert parse_index(serialize_index(index).encode(), "index.json") == index


@pytest.mark.parametrize("zstd", [False, True])
def test_records_have_exactly_the_columns_of_the_index(zstd):
    tokens = Ragged(np.array([5, 6, 7], np.uint8), np.array([0, 1, 3]))
    labels = np.array([[1, 2, np.nan], [4, 5, 6]], np.float32)
    data = b"".join(serialize_record(0, Record(tokens, labels, np.array([1, 2])), zstd))
    assert parse_record(data, 2, 3).expression.tobytes() == labels.tobytes()
    for columns in (None, 2, 4, 6):
        with pytest.raises(ValueError, match="expression: expected"):
            parse_record(data, 2, columns)
    one = b"".join(serialize_record(0, Record(tokens, labels[:, 0], np.array([1, 2])), zstd))
    with pytest.raises(ValueError, match=r"expression: expected an array of shape \(rows, 2\), got \(rows,\)"):
        parse_record(one, 2, 2)
    flat = b"".join(serialize_record(0, Record(tokens, labels.reshape(1, 6), np.array([1, 2])), zstd))
    with pytest.raises(ValueError, match="expression: expected"):
        parse_record(flat, 2, 3)
