import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pyarrow.parquet as pq
import pytest
from transformers import BertForSequenceClassification

from model.interpretation.page import explain, render_effects_page
from model.interpretation.saturation_mutagenesis import BASES, MutagenesisResult, saturation_mutagenesis
from model.interpretation.sections import MIN_VISIBLE_EFFECT, NO_VISIBLE_EFFECT, PageFacts
from model.prediction.predictor import Predictor
from pipeline.errors import UserError
from tests.model.saved_model import save_model

L, R = "TGCATTTTTTTCACATC", "GGTTACGGCTGTT"
INSERT = "ACGTNACGTTGACTCAGGTTACCATACGATTTACGAGCATTACGAGCGTACGTACTGACTAGC"


@pytest.fixture(scope="module")
def model(tmp_path_factory, made):
    return save_model(tmp_path_factory.mktemp("model"), made.config.assay)


def test_rows_equal_the_predictions_of_their_promoters(model):
    predictor = Predictor(model)
    result = saturation_mutagenesis(predictor, f"{L}{INSERT}{R}")
    rows = result.table().to_pylist()
    assert len(rows) == 3 * len(INSERT) + 1  # an N has four substitutions
    assert result.prediction == pytest.approx(float(predictor.predict([f"{L}{INSERT}{R}"])[0]), abs=1e-5)
    mutants = []
    for row in rows:
        place = row["position"] - 1
        assert row["reference"] == INSERT[place] != row["base"]
        assert row["effect"] == pytest.approx(row["prediction"] - result.prediction, abs=1e-5)
        mutants.append(f"{L}{INSERT[:place]}{row['base']}{INSERT[place + 1 :]}{R}")
    assert len(set(mutants)) == len(rows)
    assert [row["prediction"] for row in rows] == pytest.approx(predictor.predict(mutants).tolist(), abs=1e-5)
    for place in range(len(INSERT)):
        losses = [-row["effect"] for row in rows if row["position"] == place + 1]
        assert result.importance[place] == pytest.approx(np.mean(losses), abs=1e-5)


def test_page_plot_and_tables_agree(model, tmp_path):
    outputs = [tmp_path / f"out.{ending}" for ending in ("html", "svg", "tsv", "parquet")]
    summary = explain(model, f"{L}{INSERT}{R}", outputs)
    result = saturation_mutagenesis(model, f"{L}{INSERT}{R}")  # with a folder in place of a predictor
    assert pq.read_table(outputs[3]).equals(result.table())
    heads, *lines = [line.split("\t") for line in outputs[2].read_text().splitlines()]
    assert heads == ["position", "reference", "base", "prediction", "effect"]
    assert [np.float32(line[4]) for line in lines] == result.table()["effect"].to_pylist()
    page = outputs[0].read_text()
    assert not re.search(r"(src|href)=\"(?!#|data:)", page)  # no external references
    for shown in (f"{result.prediction:.3f}", INSERT, f"{np.abs(result.effects).max():.3f}"):
        assert shown in page
    plot = ElementTree.parse(outputs[1])
    texts = [element.text for element in plot.iter() if element.tag.endswith("}text")]
    bases = "".join(text for text in texts if text in set("ACGTN"))
    # The bases of each line of the plot, then the names of the map's rows below it.
    assert bases == f"{INSERT[:32]}{BASES}{INSERT[32:]}{BASES}"
    assert result.importance[summary.position - 1] == pytest.approx(summary.loss)
    assert abs(summary.loss) == pytest.approx(np.abs(result.importance).max())


@pytest.mark.parametrize(("loss", "direction"), [(0.9, "raises"), (-0.9, "lowers")])
def test_most_important_base_has_the_largest_absolute_effect(loss, direction):
    predictions = np.full((3, 4), 5, np.float32)
    predictions[1] = 5 - loss
    predictions[1, BASES.index("G")] = 5
    predictions[2] = [5, 5 - loss / 2, 5 - loss / 2, 5 + loss / 3]
    result = MutagenesisResult("AGA", 5.0, predictions)
    assert result.most_important == 1
    page = render_effects_page({"": result}, PageFacts(Path("runs/demo"), "promoter"))
    assert f"G2: {direction} predicted expression (mean effect of its substitutions {-loss:+.3f})" in page


def test_page_of_a_model_that_predicts_a_constant(model, tmp_path):
    constant = BertForSequenceClassification.from_pretrained(model)
    constant.classifier.weight.data.zero_()
    constant.save_pretrained(tmp_path / "model")
    summary = explain(tmp_path / "model", f"{L}ACGTACGT{R}", [tmp_path / "out.html"])
    assert summary.largest < MIN_VISIBLE_EFFECT
    page = (tmp_path / "out.html").read_text()
    assert NO_VISIBLE_EFFECT.capitalize() in page
    assert not re.search(r"[-+]0\.000", page)
    assert explain(model, f"{L}ACGTACGT{R}", [tmp_path / "out.html"]).largest > MIN_VISIBLE_EFFECT
    assert NO_VISIBLE_EFFECT.capitalize() not in (tmp_path / "out.html").read_text()


def test_invalid_promoters_and_outputs_raise(model, tmp_path):
    for promoter, output, message in (
        ("ACGT", "out.html", "the sequence: left adapter missing"),
        (f"{L}{INSERT}{R}", "typo/out.html", "no folder .*typo"),
        (f"{L}acgt{R}", "out.html", "lower-case bases"),
        (f"{L}{INSERT}{R}", "out.pdf", r"expected a name ending in \.html, \.svg, \.tsv, \.parquet"),
    ):
        with pytest.raises(UserError, match=message):
            explain(model, promoter, [tmp_path / output])
    assert not list(tmp_path.iterdir())
