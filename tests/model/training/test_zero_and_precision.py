from pathlib import Path

import pytest

from tests.model.script_results import TORCHRUN, run_script, without_dropout

pytestmark = pytest.mark.processes

SCRIPT = Path(__file__).parent / "zero_and_precision.py"
TOLERANCE = {"fp32": 1e-6, "compiled": 1e-5, "bf16": 5e-3, "fp16": 5e-3}
"""Relative tolerance of each loss against ZeRO 0 in float32. Largest differences seen: 3e-8, 3e-8, 1.3e-3, 3e-3."""
MUON_TOLERANCE = {"fp32": 1e-5, "bf16": 5e-3, "fp16": 5e-3}
"""The same for Muon, which orthogonalizes in bf16. Largest differences seen: 7e-6, 1.0e-3, 2e-5."""

MATRIX = [(zero, p) for zero in range(4) for p in ("fp32", "bf16", "fp16") if (zero, p) != (0, "fp16")]
"""ZeRO stages and precisions; read_ds_config refuses ZeRO 0 with fp16."""


@pytest.fixture(scope="module")
def results(made, tmp_path_factory):
    """Return the first losses on two ranks at each ZeRO stage and precision, without dropout."""
    return run_script(SCRIPT, tmp_path_factory.mktemp("matrix"), without_dropout(made.config), 280, TORCHRUN)


@pytest.mark.parametrize(("zero", "precision"), [*MATRIX, (1, "compiled"), (3, "compiled")])
def test_losses_are_equal_at_every_zero_stage_and_precision(results, zero, precision):
    result = results[f"{zero} {precision}"]
    steps = 5 if precision == "compiled" else 20
    assert (result["problem"], result["skipped"], len(result["losses"])) == ("", 0, steps)
    assert result["scale"] == (4096 if precision == "fp16" else None)
    assert result["waits"] == 0  # by default DeepSpeed waits twice per micro-batch to measure throughput
    assert result["prologues"] == result["micro_batches"] == 2 * steps
    assert result["losses"] == pytest.approx(results["0 fp32"]["losses"][:steps], rel=TOLERANCE[precision])


@pytest.mark.parametrize(("zero", "precision"), MATRIX)
def test_evaluations_are_equal_at_every_zero_stage_and_precision(results, zero, precision):
    expected = results["0 fp32"]["predictions"]
    assert len(set(expected)) == 8
    assert results[f"{zero} {precision}"]["predictions"] == pytest.approx(expected, rel=TOLERANCE[precision])


@pytest.mark.parametrize(("zero", "precision"), MATRIX)
def test_exported_weights_are_not_rounded_to_half_precision(results, zero, precision):
    """They are the optimizer's float32 weights, and round to those that the model was trained with."""
    result = results[f"{zero} {precision}"]
    assert result["matrices"] == 11
    assert result["rounded"] == []
    assert result["differing"] == []
    assert result["whole"] >= 11 or zero == 3  # ZeRO 3 leaves no rank whole weights


@pytest.mark.parametrize(("zero", "precision"), [each for each in MATRIX if each[0] < 3])
def test_muon_trains_alike_at_every_zero_stage_and_precision(results, zero, precision):
    """ZeRO 1 and 2 divide the matrices between the ranks."""
    result, expected = results[f"{zero} {precision} muon"], results["0 fp32 muon"]["losses"]
    assert expected != results["0 fp32"]["losses"]
    assert (result["problem"], result["skipped"], len(result["losses"])) == ("", 0, 20)
    assert result["losses"] == pytest.approx(expected, rel=MUON_TOLERANCE[precision])
    assert result["rounded"] == result["differing"] == []


def test_gradients_that_overflow_halve_the_loss_scale_until_the_run_ends(results):
    """The scale 2^12 is halved in twelve skipped steps; the next overflow ends the run."""
    assert results["overflow"]["scale"] == 1
    assert results["overflow"]["skipped"] == 12
    assert "gradients overflow in fp16 even at the smallest loss scale" in results["overflow"]["problem"]
