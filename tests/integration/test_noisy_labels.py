"""Trainings with bins, the flag of whole numbers and random Ns: resume on other ranks, and every use of the model."""

import numpy as np
import onnxruntime
import pytest
from safetensors.numpy import load_file

from model.export.onnx import encode_bases, export_onnx
from model.interpretation.saturation_mutagenesis import saturation_mutagenesis
from model.reporting.run_page import write_report
from tests.integration.conftest import by_the_model_card
from tests.integration.test_resume import SCRATCH, copy, same_weights, train  # noqa: F401

pytestmark = [pytest.mark.processes, pytest.mark.long]

NOISE = (*SCRATCH, "finetune.loss=bins", "finetune.whole_number_flag=true", "finetune.random_n=0.2")


@pytest.fixture(scope="module")
def never_stopped(prepared):
    """The run directory of the same training on one rank from beginning to end."""
    train(prepared, 1, *NOISE, "run.name=noise")
    return prepared.folder / "runs" / "noise"


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_resumed_run_equals_an_uninterrupted_one(copy, never_stopped, ranks):  # noqa: F811
    """Bit for bit on the same number of ranks; on another one the sums of gradients are added in another order."""
    stopped = train(copy, ranks, *NOISE, STOP_AT="0:12")
    assert "stopped    finetune after step 13" in stopped.stdout
    resumed = train(copy, 1, *NOISE)
    assert "resumes from the checkpoint of step 13" in resumed.stderr
    run = copy.folder / "runs" / "paper"
    assert same_weights(run, never_stopped) or ranks == 2
    a, b = (load_file(each / "model" / "model.safetensors") for each in (run, never_stopped))
    for name, weight in a.items():
        np.testing.assert_allclose(weight, b[name], rtol=0, atol=1e-5)
    assert a["classifier.weight"].shape[0] == 18
    plain = train(copy, 1, *NOISE[:-1], "run.name=without")
    assert plain.returncode == 0
    assert not same_weights(copy.folder / "runs" / "without", never_stopped)


@pytest.mark.parametrize("overrides", [(), ("finetune.tokens=overlapping", "model.kmer_embedding=composed")])
def test_card_onnx_and_explain_use_the_expected_value(copy, overrides):  # noqa: F811
    copy.run("python", "train.py", *NOISE, *overrides)
    stock, ours = by_the_model_card(copy, "paper")
    assert stock == pytest.approx(ours, abs=1e-5)
    assert 1 < ours < 16
    run, promoter = copy.folder / "runs" / "paper", (copy.folder / "one.tsv").read_text().strip()
    exported = export_onnx(run, copy.folder / "model.onnx")
    assert exported.difference is not None
    session = onnxruntime.InferenceSession(exported.file, providers=["CPUExecutionProvider"])
    assert session.run(None, {"bases": encode_bases([promoter])})[0][0] == pytest.approx(ours, abs=1e-4)
    result = saturation_mutagenesis(run, promoter)
    assert result.prediction == pytest.approx(ours, abs=1e-5)
    assert 0 < np.abs(result.effects).max() < 4  # on the scale of the labels
    write_report(run, dataset=copy.folder / "dataset.duckdb")
    assert "cross-entropy over bins of the label, in nats" in (run / "report.html").read_text()
