"""In-silico saturation mutagenesis of a model of two labels: a result, rows and sections per label."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from model.cli.app import app
from model.interpretation.saturation_mutagenesis import mutagenesis_by_label, saturation_mutagenesis
from model.prediction.predictor import Predictor
from pipeline.errors import UserError
from tests.model.saved_model import save_model

PROMOTER = "TGCATTTTTTTCACATC" + "ACGTTGCANT" + "GGTTACGGCTGTT"


@pytest.fixture(scope="module")
def model(made, tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("model"), made.config.assay, labels=("Dev", "Hk"))


def test_each_label_has_the_predictions_of_its_column(model):
    predictor = Predictor(model)
    values = predictor.predict([PROMOTER, PROMOTER.replace("ACGTTGCANT", "CCGTTGCANT")])
    for place, label in enumerate(("Dev", "Hk")):
        result = saturation_mutagenesis(predictor, PROMOTER, label=label)
        assert result.prediction == pytest.approx(float(values[0, place]), abs=1e-5)
        assert result.predictions[0, 1] == pytest.approx(float(values[1, place]), abs=1e-5)
    for label, problem in ((None, "several labels"), ("dev", "no label 'dev'")):
        with pytest.raises(UserError, match=f"{problem}; expected one of Dev, Hk"):
            saturation_mutagenesis(predictor, PROMOTER, label=label)


def explain(*arguments):
    return CliRunner().invoke(app, ["explain", PROMOTER, *map(str, arguments), "--json"], standalone_mode=False)


def test_files_of_all_labels_and_of_one(model, tmp_path):
    expected = mutagenesis_by_label(model, PROMOTER)
    outcome = explain("--model", model, "-o", tmp_path / "all.tsv", "-o", tmp_path / "all.html")
    summary = json.loads(outcome.stdout)["labels"]
    assert {name: each["prediction"] for name, each in summary.items()} == pytest.approx(
        {name: result.prediction for name, result in expected.items()}, abs=1e-5
    )
    head, *lines = (line.split("\t") for line in (tmp_path / "all.tsv").read_text().splitlines())
    assert head == ["position", "reference", "base", "prediction", "effect", "label"]
    for name, result in expected.items():
        effects = [float(line[4]) for line in lines if line[5] == name]
        assert effects == pytest.approx(result.table()["effect"].to_pylist(), abs=1e-5)
    assert len(lines) == 2 * 31
    page = (tmp_path / "all.html").read_text()
    assert [page.count(f"{label}</h2>") for label in ("Dev", "Hk")] == [3, 3]
    one = explain("--model", model, "--label", "Hk", "-o", tmp_path / "one.svg", "-o", tmp_path / "one.tsv")
    assert json.loads(one.stdout)["prediction"] == pytest.approx(expected["Hk"].prediction, abs=1e-5)
    assert {line.split("\t")[5] for line in (tmp_path / "one.tsv").read_text().splitlines()[1:]} == {"Hk"}
    assert isinstance(explain("--model", model, "-o", tmp_path / "two.svg").exception, UserError)
    assert not (tmp_path / "two.svg").exists()
    assert np.ptp([result.prediction for result in expected.values()]) > 0.01
