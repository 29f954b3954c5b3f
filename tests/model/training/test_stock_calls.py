"""The natural call of stock transformers, `predict`, Predictor and ONNX give the same number for every preset.

Where one pass of a stock model cannot, because it reads one reading frame or gives bins, its model card says so.
"""

import contextlib
import io
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pyarrow.parquet as pq
import pytest
import torch
from transformers import pipeline

from model.artifacts.model_directory import ONE_LABEL
from model.bert.build import build_regression_model
from model.bert.frames import TOKEN_MODES
from model.config import Config, load_config
from model.export.onnx import encode_bases, export_onnx
from model.export.onnx_graph import SequenceRegressor
from model.prediction.example import compute_example
from model.prediction.files import predict_files
from model.prediction.predictor import Predictor
from model.prediction.request import PredictionRequest
from model.training.checkpointing.hf_export import export_model
from model.training.model_card import render_card
from pipeline.dataset.input.columns import Columns
from pipeline.shards.index import Index, read_index
from tests.conftest import ROOT

TINY = ("model.hidden=16", "model.heads=2", "model.intermediate=32", "model.layers=2", "model.dropout=0.0")
MEANS, DEVIATIONS = [2.0, -1.0], [1.0, 0.5]


def find_presets():
    """Load all presets at a tiny size: name -> config. Those of one model at this size are one entry."""
    found = {}
    for path in [ROOT / "config.yaml", *sorted((ROOT / "configs").glob("**/*.yaml"))]:
        config = load_config(path, TINY)
        model = config.model.architecture, config.shards.k, config.finetune.tokens, config.dataset.labels
        key = repr((config.assay, *model))
        names, _ = found.get(key, ("", None))
        found[key] = f"{names} {path.stem}".strip(), config
    return dict(found.values())


PRESETS = find_presets()
PREDICTION_PAGE = ROOT / "docs" / "prediction.md"


@dataclass
class Exported:
    """Model folder of a preset, and its predictions (rows, labels) of some promoters by Predictor."""

    folder: Path
    config: Config
    index: Index
    promoters: list[str]
    expected: np.ndarray

    @property
    def is_partial(self):
        """Whether one pass of the stock model reads one of several reading frames."""
        return self.config.finetune.tokens == "frames" and self.config.shards.k > 1

    def card(self, finished_run, example=None):
        summary = json.loads((finished_run / "summary.json").read_text())
        facts = json.loads((finished_run / "run.json").read_text())
        config = self.config.model_dump()
        return render_card({**summary, "config": config, "model": str(self.folder)}, facts, self.index, example)


def export(made, folder, config, labels=()):
    """Export a model of random weights as train.py does, and predict three promoters."""
    scale = {"label_mean": MEANS, "label_sd": DEVIATIONS} if labels else {"label_mean": 2.0, "label_sd": 1.0}
    index = replace(read_index(made.shards), k=config.shards.k, labels=list(labels), **scale)
    torch.manual_seed(0)
    model = build_regression_model(config, index, None)
    with torch.no_grad():
        for weights in model.parameters():
            weights.add_(torch.randn_like(weights) * 0.5)
    weights = {name: value.detach().clone() for name, value in model.named_parameters()}
    export_model(model, weights, config, index, folder)
    assay, draws = config.assay, np.random.default_rng(3)
    inserts = ["".join(draws.choice(list("ACGTN"), length)) for length in (80, 79, 31)]
    promoters = [assay.left_adapter + insert + assay.right_adapter for insert in inserts]
    expected = Predictor(folder).predict(promoters).reshape(len(promoters), -1)
    assert (expected.std(0) > 0.003).all()  # so that wrong tokens would be seen
    return Exported(folder, config, index, promoters, expected)


@pytest.fixture(params=PRESETS)
def exported(request, made, tmp_path):
    config = PRESETS[request.param]
    labels = config.dataset.labels if len(config.dataset.labels) > 1 else ()
    return export(made, tmp_path / "model", config, labels)


def call_pipeline(classify, texts):
    """Call the stock pipeline: the values (texts, labels) and the names of the labels."""
    names = classify.model.config.id2label
    results = [classify(text, top_k=None) for text in texts]
    values = [[one["score"] for name in names.values() for one in result if one["label"] == name] for result in results]
    if len(names) == 1:
        assert classify(texts[0]) == results[0]
        assert [[one["score"]] for one in classify(texts)] == values
    return np.array(values), list(names.values())


def run_snippet(card):
    """Run the Python code of a card, as run_code."""
    (code,) = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    return run_code(code)


def run_code(code):
    """Run Python code: the promoter and what it prints, the numbers of its labels in order."""
    printed, names = io.StringIO(), SimpleNamespace()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "card", "exec"), vars(names))
    return names.promoter, [float(number) for number in re.findall(r"-?\d+\.\d+(?:e-?\d+)?", printed.getvalue())]


def test_every_call_gives_the_same_number(exported, finished_run, tmp_path):
    classify = pipeline("text-classification", model=str(exported.folder), device="cpu")
    values, names = call_pipeline(classify, exported.promoters)
    example = compute_example(exported.folder)
    card = exported.card(finished_run, example)
    promoter, by_card = run_snippet(card)
    assert promoter == example.promoter
    assert sorted(by_card) == pytest.approx(sorted(example.prediction), abs=1e-5)
    assert example.prediction == pytest.approx(Predictor(exported.folder).predict([promoter]).ravel(), abs=1e-5)
    assert example.one_pass == pytest.approx(call_pipeline(classify, [promoter])[0][0], abs=1e-5)
    if exported.is_partial:
        assert names == [f"{ONE_LABEL} (one of {exported.config.shards.k} reading frames)"]
        assert np.abs(values - exported.expected).max() > 1e-3
        (bold,) = re.findall(r"\*\*(.*?)\*\*", card, re.DOTALL)
        assert f"{example.one_pass[0]:.4f} instead of {example.prediction[0]:.4f}" in bold
    else:
        assert names == (exported.index.labels or [ONE_LABEL])
        assert values == pytest.approx(exported.expected, abs=1e-5)
        assert "**" not in card.split("## How to load it")[1].split("## Data")[0]
    (tmp_path / "rows.tsv").write_text("".join(f"{promoter}\n" for promoter in exported.promoters))
    output = tmp_path / "predicted.parquet"
    predict_files(PredictionRequest(exported.folder, [str(tmp_path / "rows.tsv")], str(output), Columns()))
    _, *columns, _ = pq.read_table(output).columns
    assert np.column_stack(columns) == pytest.approx(exported.expected, abs=1e-5)

    predictor = Predictor(exported.folder)
    graph = SequenceRegressor(predictor.model, predictor.assay, predictor.k, predictor.token_mode).eval()
    with torch.inference_mode():
        by_graph = graph(torch.from_numpy(encode_bases(exported.promoters))).numpy()
    assert by_graph.reshape(exported.expected.shape) == pytest.approx(exported.expected, abs=1e-5)


def test_the_documented_code_predicts_the_mean_over_both_strands(made, tmp_path):
    small = export(made, tmp_path / "model", load_config(ROOT / "configs" / "small.yaml", TINY))
    (code,) = re.findall(r"```python\n(.*?promoter_bert\[.*?)```", PREDICTION_PAGE.read_text(), flags=re.DOTALL)
    promoter, printed = run_code(code.replace("runs/small/model", str(small.folder)))
    expected = Predictor(small.folder, both_strands=True).predict([promoter])
    assert printed == pytest.approx(expected, abs=1e-5)
    assert expected != pytest.approx(Predictor(small.folder).predict([promoter]), abs=1e-3)


def test_the_card_averages_reading_frames_of_several_labels(made, finished_run, tmp_path):
    two = export(made, tmp_path / "model", PRESETS["demo"], ["a", "b"])
    example = compute_example(two.folder)
    card = two.card(finished_run, example)
    promoter, by_card = run_snippet(card)
    assert by_card == pytest.approx(Predictor(two.folder).predict([promoter])[0], abs=1e-5)
    (first, second), (a, b) = example.one_pass, example.prediction
    assert f"a {first:.4f}, b {second:.4f} instead of a {a:.4f}, b {b:.4f} for" in card
    assert example.one_pass != pytest.approx(example.prediction, abs=1e-3)


@pytest.mark.parametrize("tokens", TOKEN_MODES)
@pytest.mark.parametrize("architecture", ["bert", "modernbert"])
def test_the_card_computes_the_expected_value_of_bins(made, finished_run, tmp_path, architecture, tokens):
    noise = ["finetune.loss=bins", "finetune.random_n=0.1", f"finetune.whole_number_flag={architecture == 'bert'}"]
    settings = [f"model.architecture={architecture}", f"finetune.tokens={tokens}", *noise]
    config = load_config(ROOT / "configs" / "demo.yaml", [*TINY, *settings])
    model = export(made, tmp_path / "model", config)
    example = compute_example(model.folder)
    card = model.card(finished_run, example)
    promoter, (by_card,) = run_snippet(card)
    assert by_card == pytest.approx(example.prediction[0], abs=1e-5)
    assert by_card == pytest.approx(Predictor(model.folder).predict([promoter])[0], abs=1e-5)

    classify = pipeline("text-classification", model=str(model.folder), device="cpu")
    names = {place: str(place) for place in range(18)}
    assert classify.model.config.id2label == names
    assert classify.model.config.label2id == {name: place for place, name in names.items()}
    (most_probable,) = classify(promoter)
    assert (len(example.one_pass), most_probable["label"]) == (18, str(np.argmax(example.one_pass)))
    (bold,) = re.findall(r"\*\*(.*?)\*\*", card, re.DOTALL)
    assert f"{example.prediction[0]:.4f}" in bold
    assert ("of one reading frame" in bold) == model.is_partial
    assert "18 bins of the label, from 0 to 17" in card
    assert "probability of 0.1" in card
    assert ("token type 1 marked" in card) == config.finetune.whole_number_flag


@pytest.mark.long
def test_onnx(exported, tmp_path):
    """The file of each preset; the normal tests compare the graph that it is traced from."""
    result = export_onnx(exported.folder, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(result.file, providers=["CPUExecutionProvider"])
    (values,) = session.run(None, {"bases": encode_bases(exported.promoters)})
    assert values.reshape(exported.expected.shape) == pytest.approx(exported.expected, abs=1e-5)
