import io
import json

import numpy as np
import pytest

from model.challenge_files import read_labels, read_predictions
from model.formats import leaderboard_rows, prediction_writer
from pipeline.errors import UserError
from tests.model.toy_challenge import ROWS, make_challenge


@pytest.fixture
def toy(tmp_path):
    return make_challenge(tmp_path)


def write(form, toy, values, sample=None, parts=(1, 7, 30, 22)):
    """Through the writer in parts of so many rows."""
    file = io.StringIO()
    writer = prediction_writer(form, file, sample)
    first = 0
    for rows in parts:
        writer.add(toy.sequences[first : first + rows], values[first : first + rows])
        first += rows
    writer.end()
    return file.getvalue()


@pytest.mark.parametrize(("form", "name"), [("final", "p.tsv"), ("leaderboard", "p.json")])
def test_what_is_written_is_read_back_bit_for_bit(toy, form, name):
    values = np.random.default_rng(0).normal(11, 3, ROWS).astype(np.float32)
    values[3] = 1e-12
    labels = read_labels(toy.folder / "ground.json", toy.folder / "test.txt")
    text = write(form, toy, values, toy.folder / "ground.json")
    (toy.folder / name).write_text(text)
    asked = np.isfinite(labels.values)
    assert 0 < asked.sum() < ROWS
    assert (read_predictions(toy.folder / name, labels).astype(np.float32)[asked] == values[asked]).all()
    assert write(form, toy, values, toy.folder / "ground.json", parts=(60,)) == text


def test_the_leaderboard_gets_the_rows_it_asks_for(toy):
    sample = toy.folder / "ground.json"
    written = json.loads(write("leaderboard", toy, np.arange(ROWS, dtype=np.float32), sample))
    assert written.keys() == json.loads(sample.read_text()).keys()
    assert all(float(key) == value for key, value in written.items())


def test_the_final_form_has_a_line_a_row(toy):
    values = np.arange(ROWS, dtype=np.float64)
    values[5] = np.nan
    lines = write("final", toy, values).splitlines()
    assert [line.split("\t")[0] for line in lines] == toy.sequences
    assert lines[5].endswith("\tnan")


def test_what_the_leaderboard_would_refuse(toy):
    sample = toy.folder / "ground.json"
    asked = sorted(leaderboard_rows(sample))
    values = np.ones(ROWS)
    with pytest.raises(UserError, match=rf"asks for row {asked[-1]} \(from 0\), but there are {asked[-1]} rows"):
        write("leaderboard", toy, values, sample, parts=(asked[-1],))
    values[asked[0]] = np.nan
    with pytest.raises(UserError, match=f"row {asked[0]} of the leaderboard has no prediction"):
        write("leaderboard", toy, values, sample)
    for text, message in (("[]", "row numbers"), ('{"a": 1}', "row numbers"), ("{", "not JSON")):
        (toy.folder / "sample.json").write_text(text)
        with pytest.raises(UserError, match=message):
            leaderboard_rows(toy.folder / "sample.json")
    with pytest.raises(UserError, match=r"sample_submission\.json"):
        write("leaderboard", toy, values)


def test_the_challenges_sample_submission(real_data):
    sample = real_data / "dream_leaderboard" / "sample_submission.json"
    assert len(leaderboard_rows(sample)) == 9045
    file = io.StringIO()
    writer = prediction_writer("leaderboard", file, sample)
    writer.add([""] * 71103, np.arange(71103, dtype=np.float32))
    writer.end()
    assert json.loads(file.getvalue()).keys() == json.loads(sample.read_text()).keys()
