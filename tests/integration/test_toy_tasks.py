"""Toy tasks with known results: what the complete workflow from rows to scores must learn, and must not learn."""

import json
import shutil

import numpy as np
import pytest
import yaml

from model.interpretation.saturation_mutagenesis import saturation_mutagenesis
from model.prediction.predictor import Predictor
from model.runs.metrics_file import read_metrics
from tests.conftest import ROOT
from tests.integration.conftest import Workspace

pytestmark = [pytest.mark.processes, pytest.mark.long]

BASES = list("ACGT")
SETTINGS = {
    "base": str(ROOT / "config.yaml"),
    "assay": {"left_adapter": "", "right_adapter": "", "flank": 0},
    "dataset": {"finetune_valid": 0.1, "finetune_test": 0.2, "pretrain_valid": 0.4, "top_fraction": 1.0},
    "shards": {"record_promoters": 200, "workers": 1},
    "model": {"hidden": 32, "layers": 2, "heads": 4, "intermediate": 64, "dropout": 0.0},
    "pretrain": {"global_batch": 64, "learning_rate": 0.003, "max_epochs": 10, "evaluate_every": 1},
    "finetune": {"start": "scratch", "global_batch": 64, "learning_rate": 0.002, "max_epochs": 8, "evaluate_every": 1},
}


@pytest.fixture
def toy(tmp_path):
    """Train on rows of (sequence, expression)."""
    for name in ("train.py", "ds_config.json"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "sql", tmp_path / "sql")
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(SETTINGS))
    workspace = Workspace(tmp_path)

    def train(rows, *arguments):
        (tmp_path / "rows.tsv").write_text("".join(f"{sequence}\t{label}\n" for sequence, label in rows))
        for command in (["promoter-bert", "build", "rows.tsv"], ["promoter-bert", "shards"], ["python", "train.py"]):
            more = arguments if command[1] == "train.py" else ()
            workspace.run(*command, "--config", "toy.yaml", *more)
        return tmp_path / "runs" / "paper"

    return train


def planted_motif(rows=2500, seed=0):
    """Draw inserts of 20 random bases; those with GAT anywhere have the label 12, the others 4."""
    rng = np.random.default_rng(seed)
    for _ in range(rows):
        sequence = "".join(rng.choice(BASES, 20))
        while "GAT" in sequence:
            sequence = sequence.replace("GAT", "GAC")
        label = 4.0
        if rng.random() < 0.5:
            place = rng.integers(18)
            sequence, label = sequence[:place] + "GAT" + sequence[place + 3 :], 12.0
        yield sequence, label


def score(run):
    return json.loads((run / "summary.json").read_text())["scores"]["test"]


def test_planted_motif_is_learned_and_has_the_largest_effects(toy):
    run = toy(planted_motif())
    assert score(run)["pearson"] > 0.95
    predictor = Predictor(run / "model")
    fresh = [sequence for sequence, label in planted_motif(60, seed=1) if label == 12.0]
    on_top = 0
    for sequence in fresh:
        place = sequence.index("GAT")
        order = np.argsort(-saturation_mutagenesis(predictor, sequence).importance)
        on_top += set(order[:3].tolist()) == {place, place + 1, place + 2}
    assert len(fresh) > 20
    assert on_top >= 0.8 * len(fresh)


def test_shuffled_labels_give_no_correlation(toy):
    """On 500 test promoters a correlation by chance stays within four standard deviations, 4 / sqrt(500)."""
    sequences, labels = zip(*planted_motif(), strict=True)
    shuffled = np.random.default_rng(1).permutation(labels)
    scores = score(toy(zip(sequences, shuffled, strict=True), "finetune.max_epochs=3"))
    assert scores["rows"] == 500
    assert abs(scores["pearson"]) < 4 / np.sqrt(500)


def test_a_masked_language_is_learned_to_its_ceiling(toy):
    """(AC[AG]TGC) eight times: one base in six is a free choice, everything else follows from the place.

    Of the 16 or 15 k-mers of a frame 8 hold a free base and are guessed right half of the time, unless they were left
    as they are, as one in ten is.
    """
    rng = np.random.default_rng(0)
    rows = [("".join(f"AC{rng.choice(['A', 'G'])}TGC" for _ in range(8)), 1.0 + i % 9) for i in range(2500)]
    run = toy(rows, "--stage", "pretrain")
    known = np.mean([1 - 0.5 * 8 / tokens for tokens in (16, 15, 15)])
    ceiling = 0.9 * known + 0.1
    accuracies = [line["valid_accuracy"] for line in read_metrics(run / "metrics.jsonl") if "valid_accuracy" in line]
    # Some 1,400 k-mers are masked in validation, half of them guessed: a standard deviation of 0.009.
    assert np.mean(accuracies[-3:]) == pytest.approx(ceiling, abs=0.03)
