import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from transformers import BertForMaskedLM

from model.export.onnx import encode_bases, example_promoters, export_onnx, largest_difference
from model.prediction.predictor import Predictor
from pipeline.errors import UserError
from tests.conftest import ROOT
from tests.model.saved_model import save_model

pytestmark = pytest.mark.processes

L, R = "TGCATTTTTTTCACATC", "GGTTACGGCTGTT"
MODELS = {"frames": (3, {"max_insert": 60}), "overlapping": (4, {"max_insert": 60, "lower_case": "upper"})}


@pytest.fixture(scope="module", params=MODELS)
def exported(request, tmp_path_factory, made):
    """Export a model. Returns its predictor, its folder and the result."""
    k, rules = MODELS[request.param]
    folder = tmp_path_factory.mktemp("onnx")
    assay = made.config.assay.model_copy(update=rules)
    model = save_model(folder / "model", assay, request.param, k=k)
    (folder / "out").mkdir()
    return Predictor(model, device=torch.device("cpu")), model, export_onnx(model, folder / "out" / "model.onnx")


def run(file, promoters):
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return session.run(["expression"], {"bases": encode_bases(promoters)})[0]


def promoters(rng, lengths, alphabet="ACGTN"):
    return [L + "".join(rng.choice(list(alphabet), n)) + R for n in lengths]


def test_batches_of_any_shape_predict_as_the_model(exported):
    predictor, _, written = exported
    rng = np.random.default_rng(1)
    for lengths in ([1], [60], [1, 60], [7] * 33, [3, 59, 20, 1, 60, 31, 8], rng.integers(1, 61, 100)):
        rows = promoters(rng, lengths)
        np.testing.assert_allclose(run(written.file, rows), predictor.predict(rows), rtol=1e-4, atol=1e-4)
    assert np.std(run(written.file, promoters(rng, [30] * 50, "ACGT"))) > 0.01


def test_invalid_rows_return_nan_and_do_not_change_other_rows(exported):
    predictor, _, written = exported
    (good,) = promoters(np.random.default_rng(2), [25], "ACGT")
    bad = [L, "", good[1:], good + "A", f"{L}ACX{R}", f"{L}{'A' * 61}{R}", f"{L}{'A' * 2000}{R}", f"{L}AC GT{R}"]
    values = run(written.file, [*bad, good])
    assert np.isnan(values[:-1]).all()
    assert values[-1] == pytest.approx(float(predictor.predict([good])[0]), abs=1e-4)
    assert run(written.file, [good])[0] == pytest.approx(float(values[-1]), abs=1e-5)
    assert np.isnan(run(written.file, bad)).all()
    assert np.isnan(run(written.file, [""])).all()
    lower = run(written.file, [good.lower()])
    assert np.isnan(lower).all() == (predictor.assay.lower_case == "reject")


def test_file_is_self_contained_and_documented(exported):
    predictor, _, written = exported
    file = Path(written.file)
    assert list(file.parent.iterdir()) == [file]
    data = file.read_bytes()
    assert len(data) == written.bytes
    assert not [place for place in (str(ROOT), torch.__path__[0]) if place.encode() in data]
    graph = onnx.load_from_string(data)
    assert {(each.domain, each.version) for each in graph.opset_import} == {("", 18)}
    facts = {each.key: each.value for each in graph.metadata_props}
    assert json.loads(facts["promoter_bert"]) == predictor.model.config.promoter_bert
    assert "uint8 (promoters, columns)" in graph.doc_string
    assert "one promoter at least" in graph.doc_string  # the graph has a maximum over promoters
    assert written.promoters_compared == 16
    assert written.difference < 1e-4


STANDALONE = """
import sys
import numpy, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1])
facts = session.get_modelmeta().custom_metadata_map
promoters = [facts["example_promoter"], facts["example_promoter"][:20]]
bases = numpy.array(promoters, "S").view(numpy.uint8).reshape(len(promoters), -1)
(expression,) = session.run(None, {"bases": bases})
assert abs(expression[0] - float(facts["example_expression"])) < 1e-4 and numpy.isnan(expression[1])
assert not {"torch", "transformers", "model", "pipeline"} & set(sys.modules)
"""


def test_file_needs_numpy_and_onnxruntime_only(exported):
    subprocess.run([sys.executable, "-I", "-c", STANDALONE, exported[2].file], check=True)


@pytest.mark.parametrize("exported", ["frames"], indirect=True)
def test_command_writes_the_same_bytes(exported, tmp_path):
    _, model, written = exported
    again = tmp_path / "again.onnx"
    command = [str(Path(sys.executable).parent / "promoter-bert"), "onnx", str(model), "-o", str(again)]
    process = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "16 promoters" in process.stdout
    # The user sees none of the exporter's messages for its developers.
    assert [line for line in process.stderr.splitlines() if not line.startswith("onnx:")] == []
    assert again.read_bytes() == Path(written.file).read_bytes()


def test_invalid_exports_raise(exported, tmp_path, monkeypatch):
    predictor, model, _ = exported
    for output in ("model.bin", "model"):
        with pytest.raises(UserError, match=r"expected a name ending in \.onnx"):
            export_onnx(model, tmp_path / output)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file is not a folder; "):
        export_onnx(model, tmp_path / "file" / "model.onnx")
    with pytest.raises(UserError, match=r"typo/model\.onnx: no folder .*typo; fix: mkdir"):
        export_onnx(model, tmp_path / "typo" / "model.onnx")
    assert not (tmp_path / "typo").exists()
    with pytest.raises(UserError, match="no model here"):
        export_onnx(tmp_path / "nowhere", tmp_path / "model.onnx")
    BertForMaskedLM(predictor.model.config).save_pretrained(tmp_path / "pretrained")
    with pytest.raises(UserError, match="pretrained only"):
        export_onnx(tmp_path / "pretrained", tmp_path / "model.onnx")
    monkeypatch.setitem(sys.modules, "onnxscript", None)  # how Python marks a package that cannot be imported
    with pytest.raises(UserError, match=r"onnxscript: not installed.*pip install -e '.\[onnx\]'"):
        export_onnx(model, tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


ERRORS_WITHOUT_TORCH = """
import sys
from pathlib import Path
from model.export.onnx import export_onnx
from pipeline.errors import UserError
for words in (sys.argv[1:3], sys.argv[3:5]):
    try:
        export_onnx(*map(Path, words))
    except UserError as error:
        print(error)
assert "torch" not in sys.modules
"""


@pytest.mark.parametrize("exported", ["frames"], indirect=True)
def test_invalid_exports_raise_before_torch_is_imported(exported, tmp_path):
    words = [exported[1], tmp_path / "typo" / "model.onnx", tmp_path, tmp_path / "model.onnx"]
    command = [sys.executable, "-c", ERRORS_WITHOUT_TORCH, *map(str, words)]
    output = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout
    assert "no folder" in output
    assert "no model here" in output


def test_file_with_other_predictions_raises(tmp_path):
    expected = np.array([1.0, 8.0], np.float32)
    assert largest_difference(tmp_path, expected + np.float32(1e-4), expected) == pytest.approx(1e-4, rel=0.1)
    for values in ([1.0, 8.1], [np.nan, 8.0]):
        with pytest.raises(UserError, match="not written: its predictions differ from the model"):
            largest_difference(tmp_path, np.array(values, np.float32), expected)


def test_example_promoters_follow_the_assay(made):
    rows = example_promoters(made.config.assay, 5)
    assert [len(row) - len(L) - len(R) for row in rows] == [500, 375, 250, 125, 1]
    assert rows == example_promoters(made.config.assay, 5)
