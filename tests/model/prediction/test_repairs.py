"""Sequences that break the rules of a model's assay: reasons and repairs."""

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model.artifacts.model_directory import describe_unfinished_run
from model.cli.app import main
from model.interpretation.page import explain
from model.prediction.files import predict_files
from model.prediction.predictor import Predictor
from model.prediction.request import PredictionRequest, check_request
from model.prediction.validate import describe_wrong_base, repaired
from pipeline.dataset.input.repairs import with_repairs
from pipeline.errors import UserError
from tests.conftest import ROOT, small_config
from tests.model.saved_model import save_model

pytestmark = pytest.mark.processes

L, R = "TGCATTTTTTTCACATC", "GGTTACGGCTGTT"
ASSAY = small_config(Path()).assay
GOOD = f"{L}ACGTNACGTT{R}"
BROKEN = {
    "assay.white_space=strip": GOOD.replace("N", " N "),
    "assay.lower_case=upper": GOOD.lower(),
    "assay.uracil=thymine": GOOD.replace("T", "U"),
    "assay.iupac=n": GOOD.replace("N", "R"),
    "assay.missing_adapters=add": "ACGTNACGTT",
}
"""Override -> a sequence that it repairs to GOOD."""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Make the directory of an unfinished run, with its model."""
    folder = tmp_path_factory.mktemp("run")
    save_model(folder / "model", ASSAY)
    (folder / "run.json").write_text("{}")
    return folder


@pytest.mark.parametrize("setting", BROKEN)
def test_hint_of_a_problem_repairs_it(setting):
    with pytest.raises(UserError, match=f"repair them with {setting}"):
        repaired([BROKEN[setting]], ASSAY)
    assay = with_repairs(ASSAY.model_dump(), [setting])
    assert repaired([BROKEN[setting]], assay).to_pylist() == [GOOD]
    assert with_repairs(assay.model_dump(), [f"{setting.partition('=')[0]}=reject"]) == ASSAY


@pytest.mark.parametrize(
    ("left", "right", "mismatches"),
    [("TGCATTTTTTTCACAGG", R, 2), (L, "GGTTACGGCTGTA", 1), ("AGCATTTTTTTCACATC", "CCTTACGGCTGTA", 3)],
)
def test_inexact_adapters_are_replaced(left, right, mismatches):
    sequence = f"{left}ACGTNACGTT{right}"
    with pytest.raises(UserError, match=rf"repair them with assay\.adapter_mismatches={mismatches}$"):
        repaired([sequence], ASSAY)
    assay = with_repairs(ASSAY.model_dump(), [f"assay.adapter_mismatches={mismatches}"])
    assert repaired([sequence, GOOD], assay).to_pylist() == [GOOD, GOOD]
    assert with_repairs(assay.model_dump(), ["assay.adapter_mismatches=0"]) == ASSAY
    with pytest.raises(UserError, match=r"adapter missing"):
        repaired(["ACGTNACGTT" * 4], assay)  # no adapter at all


@pytest.mark.parametrize("k", [3, 6])
def test_overlapping_kmers_are_joined(k):
    words = " ".join(GOOD[i : i + k] for i in range(len(GOOD) - k + 1))
    blocks = " ".join(GOOD[i : i + 10] for i in range(0, len(GOOD), 10))
    assay = with_repairs(ASSAY.model_dump(), ["assay.white_space=strip"])
    assert repaired([words, blocks, f" {words.replace(' ', '  ')} "], assay).to_pylist() == [GOOD] * 3


def test_requested_repairs_reach_the_model(run, tmp_path):
    (tmp_path / "rows.txt").write_text("\n".join([GOOD, *BROKEN.values()]) + "\n")
    request = PredictionRequest(run, [str(tmp_path / "rows.txt")], str(tmp_path / "out.txt"), workers=1)
    result = predict_files(request)
    assert sum(result.problems.values()) == len(BROKEN)
    assert all(setting in result.hint for setting in BROKEN)
    repaired_all = predict_files(replace(request, overrides=tuple(BROKEN)))
    assert (repaired_all.problems, repaired_all.hint) == ({}, "")
    assert result.sequence_lengths == repaired_all.sequence_lengths == (len(GOOD), len(GOOD))  # not as read
    lines = [line.split("\t") for line in (tmp_path / "out.txt").read_text().splitlines()]
    assert [sequence for sequence, _ in lines] == [GOOD, *BROKEN.values()]
    # Equal rows at other places of a batch: equal within a tolerance only.
    values = [float(value) for _, value in lines]
    assert values == pytest.approx([values[0]] * len(lines), abs=1e-5)


def test_error_without_valid_rows_names_further_repairs(run, tmp_path):
    (tmp_path / "rows.txt").write_text(f"{GOOD.lower()}\nACGT\n")
    request = PredictionRequest(run, [str(tmp_path / "rows.txt")], str(tmp_path / "out.txt"), workers=1)
    add = r"assay\.missing_adapters=add \(for bare inserts of this assay\); promoters of another assay need a model .*"
    first = r"first: row 1, 't' at 1\)"
    with pytest.raises(UserError, match=rf"missing; {first}; repair them with assay\.lower_case=upper {add}$"):
        predict_files(request)
    (tmp_path / "rows.txt").write_text(f"{L}ACGT\n")
    with pytest.raises(UserError, match=r"\(1 row: right adapter missing; first: row 1\)$"):
        predict_files(replace(request, overrides=("assay.missing_adapters=add",)))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("assay.flank=3", "no effect on a trained model.* assay.white_space=strip"),
        ("shards.k=4", "shards.k=4: has no effect"),
        ("assay.iupac=N", "expected assay.iupac=reject or assay.iupac=n"),
        ("assay.adapter_mismatches=6", "expected a number from 0 to 5"),
    ],
)
def test_other_overrides_raise(run, tmp_path, override, message):
    (tmp_path / "rows.txt").write_text(f"{GOOD}\n")
    with pytest.raises(UserError, match=message):
        check_request(
            PredictionRequest(run, [str(tmp_path / "rows.txt")], str(tmp_path / "out.txt"), overrides=(override,))
        )
    for call in (
        lambda: explain(run, GOOD, [tmp_path / "out.tsv"], [override]),
        lambda: Predictor(run, overrides=[override]),
    ):
        with pytest.raises(UserError, match=message):
            call()


def test_predictor_returns_nan_and_reason_for_invalid_sequences(run):
    predictor = Predictor(run)
    rows = ["", GOOD, GOOD.lower(), None, f"{L}A{R}"]
    with pytest.warns(
        UserWarning, match=r"\(nan\) for 2: no sequence, 1: lower-case bases; repair .*lower_case=upper\."
    ):
        values = predictor.predict(rows)
    assert np.isnan(values).tolist() == [True, False, True, True, False]
    assert predictor.problems(rows) == ["no sequence", None, "lower-case bases", "no sequence", None]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert values[[1, 4]] == pytest.approx(predictor.predict([GOOD, f"{L}A{R}"]), abs=1e-5)
        assert predictor.predict([]).shape == (0,)


def test_model_of_an_unfinished_run_warns(run, tmp_path):
    (tmp_path / "rows.txt").write_text(f"{GOOD}\n")
    request = PredictionRequest(run / "model", [str(tmp_path / "rows.txt")], str(tmp_path / "out.txt"), workers=1)
    messages: list[str] = []
    predict_files(request, warn=messages.append)
    assert (
        [text for text in messages if "is not finished" in text] == messages == [describe_unfinished_run(run / "model")]
    )
    (run / "summary.json").write_text("{}")
    assert describe_unfinished_run(run / "model") == ""
    (run / "summary.json").unlink()


def test_commands_accept_repairs_and_a_run_directory(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("rows.txt").write_text(f"{GOOD.lower()}\nACGT\n")
    Path("runs").mkdir()
    Path("runs/one").symlink_to(run)
    printed = {}
    for command, code in (
        ("predict runs/one rows.txt -o out.txt assay.lower_case=upper", 0),
        (f"explain {GOOD.lower()} -o out.tsv --config {ROOT}/config.yaml run.name=one assay.lower_case=upper", 0),
        (f"explain {GOOD} -o out.tsv --model runs/one run.name=one", 1),
        ("predict runs/one rows.txt -o out.txt assay.flank=1", 1),
    ):
        with pytest.raises(SystemExit) as end:
            main(command.split())
        assert end.value.code == code
        printed[command] = "".join(capsys.readouterr())
    of_predict, of_explain, of_a_run_twice, of_a_flank = printed.values()
    assert (
        "no prediction for 1 of 2 promoters: left adapter missing\nrepair them with assay.missing_adapters=add"
        in of_predict
    )
    assert f"predicted expression {float(Path('out.txt').read_text().split()[1]):.3f}" in of_explain
    assert "run.name=one: has no effect" in of_a_run_twice
    assert "assay.flank=1: has no effect" in of_a_flank


def test_the_first_wrong_letter_is_named_as_it_is_written():
    with pytest.raises(UserError, match=rf"letters other than ACGTN, '\*' at {len(GOOD) - 1}; expected"):
        repaired([f"{GOOD[:-2]}*{GOOD[-1]}".lower()], ASSAY.model_copy(update={"lower_case": "upper"}))
    assert describe_wrong_base("acgT", "acgT") == "'a' at 1"
    assert describe_wrong_base("acgx", "ACGX") == "'x' at 4"
    assert describe_wrong_base("acgu", "ACGT") == ""
