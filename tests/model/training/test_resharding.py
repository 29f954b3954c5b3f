from pathlib import Path

import pytest
import torch

from model.artifacts.manifest import Layout
from model.training.checkpointing.reshard import align_step_counts, check_convertible
from pipeline.errors import UserError
from tests.model.script_results import run_script

SCRIPT = Path(__file__).parent / "resharding.py"


@pytest.mark.parametrize("step", [3, 3.0, torch.tensor(3.0, dtype=torch.float64), torch.tensor([3])])
def test_step_counts_move_to_the_device_of_the_weights(step):
    """The device is torch's meta device, which a CPU can tell from its own."""
    weights = [torch.nn.Parameter(torch.zeros(2, device="meta")) for _ in range(2)]
    optimizer = torch.optim.SGD(weights)
    for one in weights:
        optimizer.state[one]["step"] = step
    align_step_counts(optimizer)
    steps = [optimizer.state[one]["step"] for one in weights]
    assert {(one.device.type, one.dtype, one.shape) for one in steps} == {("meta", torch.float32, torch.Size())}
    assert steps[0] is not steps[1]


def test_conversions_that_deepspeed_cannot_do_are_an_error():
    for zero, target in ((0, "ZeRO 0, got 1"), (3, "ZeRO 3, got 1")):
        with pytest.raises(UserError, match=f"expected {target}"):
            check_convertible(Path("step-1"), Layout(1, zero, "fp32"), Layout(2, 1, "fp32"))
    with pytest.raises(UserError, match="expected fp32, got bf16"):
        check_convertible(Path("step-1"), Layout(1, 0, "fp32"), Layout(1, 0, "bf16"))
    check_convertible(Path("step-1"), Layout(1, 1, "fp32"), Layout(2, 2, "bf16"))


@pytest.fixture(scope="module")
def results(made, tmp_path_factory):
    """Return the optimizer's state after loading a converted checkpoint, by "ZeRO precision"."""
    return run_script(SCRIPT, tmp_path_factory.mktemp("resharding"), made.config, timeout_s=280)


@pytest.mark.processes
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("zero", [1, 2, 3])
def test_converted_checkpoint_of_another_precision_continues(results, zero, precision):
    """Step counts planted as float64 are float32 on the device, and the loss scale is that of the run's precision."""
    result = results[f"{zero} {precision}"]
    assert result["planted"] > 0
    assert (result["types"], result["on_device"], result["shared"]) == (["torch.float32"], True, 0)
    assert (result["values"], result["next"]) == ([7.0], [8.0])
    assert (result["scale"], result["dynamic"]) == ((4096.0, True) if precision == "fp16" else (None, False))
    assert result["loss"] == pytest.approx(results["1 fp32"]["loss"], rel=5e-3)


@pytest.mark.processes
def test_converted_checkpoint_of_muon_continues_with_a_new_momentum(made, results):
    """Weights, Adam's moments and both rates are those of the checkpoint, which stays as it was."""
    result = results["muon"]
    adam, muon = ["exp_avg", "exp_avg_sq", "step"], ["momentum_buffer"]
    assert (result["intact"], result["weights"], result["left"]) == (True, True, ["latest_universal", "muon"])
    assert [values for values in result["loaded"] if values] == [adam]
    assert result["trained"] == [adam, muon]
    rate, of_muon = result["rates"]
    assert of_muon / rate == pytest.approx(0.01 / made.config.finetune.learning_rate)
    assert result["losses"][0] == pytest.approx(result["losses"][1], rel=1e-6)
