"""Faults of the GPU path that need no GPU to show: see fake_gpu.py."""

from pathlib import Path

import pytest

from tests.model.script_results import run_script

pytestmark = pytest.mark.processes

SCRIPT = Path(__file__).parent / "fake_gpu.py"
PRECISIONS = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
CASES = (
    "pretrain", "pretrain insert", "finetune frames", "finetune overlapping", "finetune smooth_l1", "finetune frozen",
    "pretrain modernbert", "finetune modernbert overlapping", "pretrain composed",
    "pretrain spans overlapping", "pretrain spans overlapping bert",
)  # fmt: skip


@pytest.fixture(scope="module")
def results(made, tmp_path_factory):
    return run_script(SCRIPT, tmp_path_factory.mktemp("fake-gpu"), made.config, timeout_s=120)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("case", CASES)
def test_step_and_evaluation_stay_on_the_device_and_wait_for_nothing(results, case, precision):
    result = results[f"{case} {precision}"]
    assert result["problems"] == []
    assert min(result["operations"]) > 100
    assert set(result["passes"]) == ({False} if "overlapping" in case else {False, True})  # whether without a mask
    # Pretraining counts the k-mers of the global batch from its lengths, which it copies to the device.
    copied = ["devices: _to_copy ['cpu', 'fakegpu']"] if case.startswith("pretrain") else []
    assert result["normalizer"] == copied
    assert result["outputs"] == ["fakegpu"]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("case", CASES)
def test_loss_is_float32_and_gradients_have_the_dtype_of_the_weights(results, case, precision):
    result = results[f"{case} {precision}"]
    assert (result["loss"], result["prediction"]) == ("fakegpu float32", "fakegpu float32")
    assert (result["gradients"], result["without_gradient"]) == ([f"fakegpu {PRECISIONS[precision]}"], 0)


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("lost_device", "devices"),
        ("plant_cpu_arange", "devices"),
        ("plant_cpu_index", "devices"),
        ("plant_copy", "devices"),
        ("plant_value", "wait"),
        ("plant_nonzero", "wait"),
        ("plant_bool_index", "wait"),
    ],
)
def test_planted_fault_is_found(results, fault, kind):
    """Each would pass on a CPU, and stop or slow a GPU."""
    assert {problem.split(":")[0] for problem in results[fault]["problems"]} == {kind}


def test_planted_half_precision_loss_is_found(results):
    assert results["plant_half_loss"]["loss"] == "fakegpu float16"
