"""ONNX export of a model of two labels: a column per label, with the predictions of `predict`."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from model.export.onnx import encode_bases, example_promoters, export_onnx
from model.export.onnx_graph import SequenceRegressor
from model.prediction.predictor import Predictor
from tests.model.saved_model import save_model


@pytest.fixture(scope="module", params=[False, True], ids=["bert", "modernbert"])
def predictor(request, made, tmp_path_factory):
    assay = made.config.assay.model_copy(update={"max_insert": 40})
    folder = save_model(tmp_path_factory.mktemp("model"), assay, labels=("Dev", "Hk"), modernbert=request.param)
    return Predictor(folder, device=torch.device("cpu"))


def test_the_graph_predicts_both_labels_and_nan_for_invalid_rows(predictor):
    rows = example_promoters(predictor.assay, 9)
    graph = SequenceRegressor(predictor.model, predictor.assay, predictor.k, predictor.token_mode).eval()
    with torch.inference_mode():
        values = graph(torch.from_numpy(encode_bases([*rows, "ACGT"]))).numpy()
    np.testing.assert_allclose(values[:-1], predictor.predict(rows), rtol=1e-4, atol=1e-5)
    assert np.isnan(values[-1]).all()


@pytest.mark.long
def test_the_exported_file_predicts_both_labels(predictor, tmp_path):
    written = export_onnx(Path(predictor.model.name_or_path), tmp_path / "model.onnx")
    assert written.difference < 1e-3
    session = onnxruntime.InferenceSession(written.file, providers=["CPUExecutionProvider"])
    rows = example_promoters(predictor.assay, 20)
    (values,) = session.run(["expression"], {"bases": encode_bases(rows)})
    np.testing.assert_allclose(values, predictor.predict(rows), rtol=1e-4, atol=1e-4)
    facts = {prop.key: prop.value for prop in onnx.load(written.file).metadata_props}
    expected = predictor.predict([facts["example_promoter"]])[0]
    assert [float(number) for number in facts["example_expression"].split()] == pytest.approx(expected, rel=1e-4)
    assert json.loads(facts["promoter_bert"])["labels"] == ["Dev", "Hk"]
