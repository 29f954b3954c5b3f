"""Predictions of a model of two labels: Predictor, files, journal, refusals."""

import csv
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from transformers import AutoModelForSequenceClassification

from model.prediction.files import predict_files
from model.prediction.journal import Journal
from model.prediction.predictor import Predictor
from model.prediction.request import PredictionRequest
from pipeline.errors import UserError
from tests.model.saved_model import save_model

LABELS = ("Dev", "Hk")


@pytest.fixture(scope="module")
def model(made, tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("model"), made.config.assay, labels=LABELS)


@pytest.fixture(scope="module")
def rows(made):
    return [line.split("\t")[0] for line in made.rows.read_text().splitlines()[:150]]


def one_label(model, folder, place):
    """Save the model with one of its outputs only."""
    stock = AutoModelForSequenceClassification.from_pretrained(model)
    weight, bias = stock.classifier.weight[place : place + 1], stock.classifier.bias[place : place + 1]
    facts = {name: value for name, value in stock.config.promoter_bert.items() if name != "labels"}
    stock.config.update({"id2label": {0: "LABEL_0"}, "promoter_bert": facts})
    stock.classifier.weight.data, stock.classifier.bias.data = weight.detach().clone(), bias.detach().clone()
    stock.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("both_strands", [False, True])
def test_columns_are_the_outputs_of_models_of_one_label(model, rows, tmp_path, both_strands):
    predictor = Predictor(model, both_strands)
    values = predictor.predict(rows)
    assert predictor.labels == LABELS
    assert (values.shape, values.dtype) == ((len(rows), 2), np.float32)
    for place in range(2):
        single = Predictor(one_label(model, tmp_path / str(place), place), both_strands)
        assert single.labels == ("expression",)
        assert values[:, place] == pytest.approx(single.predict(rows), rel=1e-5, abs=1e-6)
    assert np.abs(values[:, 0] - values[:, 1]).max() > 0.1


def test_invalid_and_no_sequences(model, rows):
    predictor = Predictor(model)
    with pytest.warns(UserWarning, match="no prediction"):
        values = predictor.predict([rows[0], "ACGX"])
    assert np.isnan(values).tolist() == [[False, False], [True, True]]
    assert predictor.predict([]).shape == (0, 2)


@pytest.mark.parametrize("form", ["tsv", "csv", "parquet"])
def test_files_have_a_column_per_label(model, rows, tmp_path, form):
    (tmp_path / "rows.txt").write_text("\n".join([*rows, "ACGX"]) + "\n")
    output = tmp_path / f"out.{form}"
    predict_files(PredictionRequest(model, [str(tmp_path / "rows.txt")], str(output), workers=1))
    expected = Predictor(model).predict(rows)
    names = ["prediction_Dev", "prediction_Hk"]
    if form == "parquet":
        table = pq.read_table(output)
        assert table.column_names == ["sequence", *names, "problem"]
        assert [table[name][-1].as_py() for name in names] == [None, None]
        got = np.column_stack([table[name].to_numpy()[:-1] for name in names])
    else:
        lines = list(csv.reader(output.open(), delimiter="\t" if form == "tsv" else ","))
        if form == "csv":
            assert lines.pop(0) == ["sequence", *names]
        assert lines.pop()[1:] == ["nan", "nan"]
        assert [line[0] for line in lines] == rows
        got = np.array([line[1:] for line in lines], float)
    assert got == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_kept_columns_are_beside_the_predictions_of_all_labels(model, rows, tmp_path):
    table = tmp_path / "rows.csv"
    lines = [f"{row},{number},{number / 7}" for number, row in enumerate(rows[:20])]
    table.write_text("\n".join(["sequence,prediction_Hk,prediction_old", *lines]) + "\n")
    output = tmp_path / "out.csv"
    predict_files(PredictionRequest(model, [str(table)], str(output), workers=1, keep_columns=True))
    head, *cells = csv.reader(output.open())
    assert head == ["sequence", "prediction_Hk_input", "prediction_old", "prediction_Dev", "prediction_Hk"]
    assert [",".join(row[:3]) for row in cells] == lines
    got = np.array([row[3:] for row in cells], float)
    assert got == pytest.approx(Predictor(model).predict(rows[:20]), rel=1e-4, abs=1e-5)


def test_journal_returns_the_values_of_all_labels(tmp_path, model, rows):
    (tmp_path / "rows.txt").write_text("\n".join(rows) + "\n")
    from model.prediction.inputs import find_prediction_input, read_parts

    predictor = Predictor(model)
    source = find_prediction_input([str(tmp_path / "rows.txt")], None)

    def predict(parts):
        for part in parts:
            yield part, predictor.predict_valid(part.valid_sequences)

    with (tmp_path / "journal").open("w+b") as file:
        read = [
            [values for _, values in Journal(file, b"key", 2).resume(read_parts(source, predictor.assay, 40), predict)]
            for _ in (0, file.seek(0))
        ]
        file.seek(0)
        resumed = Journal(file, b"key", 2)
        again = [values for _, values in resumed.resume(read_parts(source, predictor.assay, 40), predict)]
    assert resumed.rows_resumed == len(rows)
    assert np.concatenate(again).tobytes() == np.concatenate(read[0]).tobytes()
    assert np.concatenate(again).shape == (len(rows), 2)


def test_refusals(model, rows, tmp_path):
    (tmp_path / "rows.txt").write_text("\n".join(rows) + "\n")
    (tmp_path / "sample.json").write_text(json.dumps({"0": 0.0}))
    request = PredictionRequest(
        model, [str(tmp_path / "rows.txt")], str(tmp_path / "out.json"), leaderboard=tmp_path / "sample.json"
    )
    with pytest.raises(UserError, match="--leaderboard: one label"):
        predict_files(request)
    settings = json.loads((model / "config.json").read_text())
    settings["promoter_bert"]["labels"] = ["Dev"]
    (tmp_path / "config.json").write_text(json.dumps(settings))
    (tmp_path / "model.safetensors").write_bytes((model / "model.safetensors").read_bytes())
    with pytest.raises(UserError, match="id2label: expected one output per label, 1, got 2"):
        Predictor(tmp_path)
