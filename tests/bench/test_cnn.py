"""Convolutional baseline of bench/quality."""

import json
import subprocess
from dataclasses import replace

import numpy as np
import pytest
import torch

from bench.measure import module
from bench.quality.cnn import Baseline
from model.baselines.cnn import CnnSettings
from model.baselines.cnn_network import SIZES, Network, one_hot
from pipeline.dataset.build import build_dataset
from pipeline.dataset.database import open_dataset
from pipeline.errors import UserError
from pipeline.shards.location import shard_folder
from pipeline.shards.write import write_shards
from pipeline.tokens.kmers import encode_text
from tests.conftest import ROOT, small_config

pytestmark = pytest.mark.processes

BASES = np.array(list("ACGT"))
MOTIF = "TGACTCA"
SMALL = CnnSettings(size="small", epochs=6, batch=32, learning_rate=5e-3, seed=0)


def draw(rng, bases):
    return "".join(rng.choice(BASES, bases))


@pytest.fixture(scope="module")
def motif_shards(tmp_path_factory):
    """Shards of 800 promoters of different lengths, half of which contain a motif that raises expression."""
    folder, rng = tmp_path_factory.mktemp("motif"), np.random.default_rng(0)
    config = small_config(folder)
    lines = []
    for row in range(800):
        head, tail = draw(rng, rng.integers(5, 40)), draw(rng, rng.integers(5, 20))
        insert, level = (head + MOTIF + tail, 12) if row % 2 else (head + draw(rng, len(MOTIF)) + tail, 8)
        label = level + rng.normal(0, 0.5)
        lines.append(f"{config.assay.left_adapter}{insert}{config.assay.right_adapter}\t{label:.4f}\n")
    (folder / "rows.tsv").write_text("".join(lines))
    build_dataset([str(folder / "rows.tsv")], config)
    write_shards(config)
    return shard_folder(config)


def test_network_learns_a_motif_and_equal_seeds_give_equal_scores(motif_shards):
    lines: list[str] = []
    first, second = (Baseline(motif_shards, SMALL).train(lines.append) for _ in range(2))
    assert first.pearson > 0.8
    assert first.spearman > 0.6  # labels within each half differ by noise alone: two perfect halves give .87
    assert (first.train_rows, first.test_rows) == (640, 80)
    assert lines[: first.epochs] == lines[first.epochs :]
    assert (first.pearson, first.spearman, first.best_epoch) == (second.pearson, second.spearman, second.best_epoch)


def test_augmentation_changes_the_training_only(motif_shards):
    """With Ns alone, no epoch has a loss much below the variance of the standardized labels, which is 1."""

    def train(**changed):
        lines: list[str] = []
        baseline = Baseline(motif_shards, replace(SMALL, **changed))
        result = baseline.train(lines.append)
        assert np.array_equal(baseline.predict("valid")[0], baseline.predict("valid")[0])
        return result.pearson, min(float(line.split("loss ")[1].split(",")[0]) for line in lines)

    assert train(random_n=1.0, epochs=2)[1] > 0.9
    trained = [train(random_n=0.05), train(reverse_complement=True)]
    assert len(set(trained)) == 2
    for pearson, loss in trained:
        assert pearson > 0.8
        assert loss < 0.7


def test_promoters_are_predicted_as_the_same_rows_of_a_split(motif_shards):
    """Written as promoters, in another order; padded to other widths, so the last digits may differ."""
    config = small_config(motif_shards.parent.parent)
    training = Baseline(motif_shards, replace(SMALL, epochs=1))
    training.train(lambda _: None)
    held_out = training.predict_rows("test")
    with open_dataset(config.dataset.path) as connection:
        rows = connection.sql("select id, sequence from finetune where split = 'test'").fetchall()
    place = {int(row): number for number, row in enumerate(held_out.id)}
    predictions = training.predict_promoters([sequence for _, sequence in rows], config.assay)
    assert predictions == pytest.approx([held_out.prediction[place[row]] for row, _ in rows], abs=1e-4)


def test_diverged_training_raises(motif_shards):
    with pytest.raises(UserError, match=r"loss is (inf|nan) in epoch 1; .*--learning-rate"):
        Baseline(motif_shards, CnnSettings(**{**vars(SMALL), "learning_rate": 1e30})).train(lambda _: None)


def test_weights_of_the_best_epoch_are_scored(motif_shards):
    baseline, lines = Baseline(motif_shards, SMALL), []
    result = baseline.train(lines.append)
    pearson_by_epoch = [float(line.split()[-1]) for line in lines]
    assert pearson_by_epoch[result.best_epoch - 1] == max(pearson_by_epoch)
    assert max(pearson_by_epoch) == pytest.approx(result.valid_pearson, abs=1e-4)
    prediction, label = baseline.predict("valid")
    assert np.corrcoef(prediction, label)[0, 1] == pytest.approx(result.valid_pearson, abs=1e-6)
    other = Baseline(motif_shards, CnnSettings(**{**vars(SMALL), "seed": 1})).predict("valid")[0]
    assert not np.array_equal(Baseline(motif_shards, SMALL).predict("valid")[0], other)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_one_hot_bases_equal_the_sequences(k):
    sequences = ["ACGTN", "NNGATTACA", "T", ""]
    ids, lengths = pad(sequences, k, width=16)
    bases = one_hot(ids, lengths, k)
    assert bases.shape == (4, 16, 4)
    for row, sequence in enumerate(sequences):
        decoded = ["ACGT"[base.argmax()] if base.any() else "N" for base in bases[row, : len(sequence)]]
        assert "".join(decoded) == sequence
        assert not bases[row, len(sequence) :].any()


@pytest.mark.parametrize("size", SIZES)
def test_padding_has_no_effect(size):
    """On predictions and gradients, for any width of the batch."""
    rng = np.random.default_rng(0)
    sequences = [draw(rng, length) for length in (57, 80, 81, 80, 79, 12)]
    results = []
    for width in (81, 88, 120):
        torch.manual_seed(0)
        network = Network(SIZES[size])
        network.dropout.p = 0.0
        bases, lengths = one_hot(*pad(sequences, 3, width), 3), torch.tensor([len(s) for s in sequences])
        predictions = network.train()(bases, lengths)
        predictions.square().sum().backward()
        results.append([predictions.detach(), network.eval()(bases, lengths).detach(), network.stem.weight.grad])
    for one in results[1:]:
        for ours, theirs in zip(one, results[0], strict=True):
            assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-5)


def pad(sequences, k, width):
    """Make k-mer ids (rows, width), 0 past each end as in the stream, and lengths (rows,)."""
    ids = np.zeros((len(sequences), width), np.uint16)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = encode_text(sequence, k)
    return torch.from_numpy(ids), torch.tensor([len(sequence) for sequence in sequences])


def test_command_prints_json_or_an_error(motif_shards, tmp_path):
    def run(*words):
        command = module("quality.cnn", *map(str, words))
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)

    process = run(motif_shards, "--size", "small", "--epochs", "1", "--json")
    assert process.returncode == 0, process.stderr
    result = json.loads(process.stdout)
    assert result["asked"] == {
        "size": "small",
        "epochs": 1,
        "batch": 128,
        "learning_rate": 1e-2,
        "random_n": 0.0,
        "reverse_complement": False,
        "optimizer": "adam",
        "weight_decay": 0.1,
        "seed": 0,
    }
    assert result["train_rows"] == 640
    assert result["epochs"] == result["best_epoch"] == 1
    process = run(tmp_path)
    assert process.returncode == 1
    assert "no shards here" in process.stderr
    assert "Traceback" not in process.stderr
