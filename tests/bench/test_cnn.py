"""The convolutional baseline of bench/."""

import json
import subprocess

import numpy as np
import pytest
import torch

from bench.measure import module
from bench.quality.cnn import SIZES, Baseline, CnnSettings, Network, one_hot
from pipeline.dataset.build import build_dataset
from pipeline.errors import UserError
from pipeline.shards.location import shard_folder
from pipeline.shards.write import write_shards
from pipeline.tokens.kmers import encode_text
from tests.conftest import ROOT, small_config

pytestmark = pytest.mark.processes

LETTERS = np.array(list("ACGT"))
MOTIF = "TGACTCA"
SMALL = CnnSettings(size="small", epochs=6, batch=32, learning_rate=5e-3, seed=0)


def drawn(rng, bases):
    return "".join(rng.choice(LETTERS, bases))


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Shards of 800 promoters of different lengths, half of them with a motif somewhere that raises expression."""
    folder, rng = tmp_path_factory.mktemp("planted"), np.random.default_rng(0)
    config = small_config(folder)
    lines = []
    for row in range(800):
        head, tail = drawn(rng, rng.integers(5, 40)), drawn(rng, rng.integers(5, 20))
        insert, level = (head + MOTIF + tail, 12) if row % 2 else (head + drawn(rng, len(MOTIF)) + tail, 8)
        label = level + rng.normal(0, 0.5)
        lines.append(f"{config.assay.left_adapter}{insert}{config.assay.right_adapter}\t{label:.4f}\n")
    (folder / "rows.tsv").write_text("".join(lines))
    build_dataset([str(folder / "rows.tsv")], config)
    write_shards(config)
    return shard_folder(config)


def test_it_learns_a_planted_motif_and_equal_seeds_give_equal_numbers(planted):
    lines: list[str] = []
    found, again = (Baseline(planted, SMALL).train(lines.append) for _ in range(2))
    assert found.pearson > 0.8
    assert found.spearman > 0.6  # half of the labels differ by noise alone: sorting the two halves gives .87
    assert (found.train_rows, found.test_rows) == (640, 80)
    assert lines[: found.epochs] == lines[found.epochs :]
    assert (found.pearson, found.spearman, found.best_epoch) == (again.pearson, again.spearman, again.best_epoch)


def test_a_training_that_diverges_is_no_result(planted):
    with pytest.raises(UserError, match=r"loss is (inf|nan) in epoch 1; try a lower --learning-rate"):
        Baseline(planted, CnnSettings(**{**vars(SMALL), "learning_rate": 1e30})).train(lambda _: None)


def test_what_is_scored_are_the_weights_of_the_best_epoch(planted):
    baseline, lines = Baseline(planted, SMALL), []
    found = baseline.train(lines.append)
    reached = [float(line.split()[-1]) for line in lines]
    assert reached[found.best_epoch - 1] == max(reached) == pytest.approx(found.valid_pearson, abs=1e-4)
    prediction, label = baseline.predict("valid")
    assert np.corrcoef(prediction, label)[0, 1] == pytest.approx(found.valid_pearson, abs=1e-6)
    other = Baseline(planted, CnnSettings(**{**vars(SMALL), "seed": 1})).predict("valid")[0]
    assert not np.array_equal(Baseline(planted, SMALL).predict("valid")[0], other)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_bases_from_ids_spell_the_sequences(k):
    sequences = ["ACGTN", "NNGATTACA", "T", ""]
    ids, lengths = padded(sequences, k, width=16)
    bases = one_hot(ids, lengths, k)
    assert bases.shape == (4, 16, 4)
    for row, sequence in enumerate(sequences):
        spelt = ["ACGT"[base.argmax()] if base.any() else "N" for base in bases[row, : len(sequence)]]
        assert "".join(spelt) == sequence
        assert not bases[row, len(sequence) :].any()


@pytest.mark.parametrize("size", SIZES)
def test_padding_counts_for_nothing(size):
    """Neither in a prediction, nor in training, where other rows' lengths decide how much of it there is."""
    rng = np.random.default_rng(0)
    sequences = [drawn(rng, length) for length in (57, 80, 81, 80, 79, 12)]
    found = []
    for width in (81, 88, 120):
        torch.manual_seed(0)
        network = Network(SIZES[size])
        network.dropout.p = 0.0
        bases, lengths = one_hot(*padded(sequences, 3, width), 3), torch.tensor([len(s) for s in sequences])
        trained = network.train()(bases, lengths)
        trained.square().sum().backward()
        found.append([trained.detach(), network.eval()(bases, lengths).detach(), network.stem.weigh.weight.grad])
    for one in found[1:]:
        for ours, theirs in zip(one, found[0], strict=True):
            assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-5)


def padded(sequences, k, width):
    """Ids side by side, 0 past each end, as the stream has them, and lengths."""
    ids = np.zeros((len(sequences), width), np.uint16)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = encode_text(sequence, k)
    return torch.from_numpy(ids), torch.tensor([len(sequence) for sequence in sequences])


def test_the_command_says_one_line_of_json_or_what_is_wrong(planted, tmp_path):
    def said(*words):
        command = module("quality.cnn", *map(str, words))
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)

    done = said(planted, "--size", "small", "--epochs", "1", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["asked"] == {"size": "small", "epochs": 1, "batch": 128, "learning_rate": 1e-2, "seed": 0}
    assert found["train_rows"] == 640
    assert found["epochs"] == found["best_epoch"] == 1
    none = said(tmp_path)
    assert none.returncode == 1
    assert "no shards here" in none.stderr
    assert "Traceback" not in none.stderr
