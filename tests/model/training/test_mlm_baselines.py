from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import BertForMaskedLM

from model.bert.build import make_bert_config
from model.bert.device_batch import DeviceBatch, fit_width
from model.bert.objectives import PretrainTask
from model.bert.rng import make_generator
from model.distributed.process_group import World
from model.training.evaluate import StopRequestError, evaluate
from model.training.mlm_baselines import (
    COUNTED,
    BaselineTask,
    choose_context_bases,
    count_kmers,
    find_likeliest_kmers,
    score_baselines,
)
from model.training.prepare import RankData
from pipeline.shards.index import read_index
from pipeline.tokens.kmers import encode_text, vocabulary

CPU = torch.device("cpu")


@pytest.fixture
def alone(monkeypatch):
    """One rank that needs no process group."""
    monkeypatch.setattr("torch.distributed.all_reduce", lambda _: None)
    monkeypatch.setattr("model.training.evaluate.all_gather", lambda value: [value])


def data_of(made, rank=0, ranks=1):
    return RankData(made.shards, read_index(made.shards), World(rank, ranks, CPU), 0, lambda problem: problem)


def never():
    return False


def encode_rows(sequences, k):
    ids = [encode_text(sequence, k) for sequence in sequences]
    tokens = np.zeros((len(ids), max(map(len, ids)) + 3), np.int64)
    for row, row_ids in enumerate(ids):
        tokens[row, : len(row_ids)] = row_ids
    return tokens, np.array(list(map(len, sequences)))


@pytest.mark.parametrize("k", [1, 2, 3, 4, 6])
def test_kmer_counts_equal_those_of_plain_text(k):
    draws = np.random.default_rng(k)
    sequences = ["".join(draws.choice(list("ACGTN"), size=n, p=[0.3, 0.2, 0.2, 0.25, 0.05])) for n in (40, 33, 9, 25)]
    flanks, bases = (5, 4), choose_context_bases(k)
    names = vocabulary(k)[5:]
    contexts = vocabulary(bases)[5:]
    whole, inside = count_kmers(*encode_rows(sequences, k), k, flanks)
    for counts, left, right in ((whole, 0, 0), (inside, *flanks)):
        alone = dict.fromkeys(names, 0)
        before, after = {}, {}
        for text in sequences:
            for at in range(left, len(text) - right - k + 1):
                kmer = text[at : at + k]
                alone[kmer] += 1
                if at >= k:
                    key = text[at - bases : at], kmer
                    before[key] = before.get(key, 0) + 1
                if at + 2 * k <= len(text):
                    key = text[at + k : at + k + bases], kmer
                    after[key] = after.get(key, 0) + 1
        assert counts[0].tolist() == list(alone.values())
        for table, expected in zip(np.split(counts[1:], 2), (before, after), strict=True):
            rows, columns = np.nonzero(table)
            result = {(contexts[r], names[c]): table[r, c] for r, c in zip(rows, columns, strict=True)}
            assert result == expected


def test_likeliest_kmer_depends_on_the_visible_contexts():
    """Only C occurs between A and A, and T is the most frequent base elsewhere."""
    whole, _ = count_kmers(*encode_rows(["ACA" * 500 + "TGT" * 500 + "T" * 1000], 1), 1, (0, 0))
    best = find_likeliest_kmers(whole)
    a, t, unknown = 0, 3, 5
    assert vocabulary(1)[best[a, a]] == "C"
    assert vocabulary(1)[best[unknown, unknown]] == "T"
    assert vocabulary(1)[best[t, unknown]] == "T"
    assert "N" not in {vocabulary(1)[number] for number in best.ravel()}  # N does not occur


def run_task(made, task, rows=64):
    """Run a task on generated rows. Returns the batch and the sums."""
    draws = np.random.default_rng(0)
    sequences = ["".join(draws.choice(list("ACGT"), size=n)) for n in draws.integers(30, 60, size=rows)]
    tokens, lengths = encode_rows(sequences, task.k)
    global_batch = SimpleNamespace(global_rows=rows, global_lengths=lengths)
    random_numbers = task.draw(global_batch, make_generator(CPU, "guess")).slice_rows(0, rows)
    ids = torch.from_numpy(fit_width(tokens, task.choose_width(global_batch, CPU)))
    batch = DeviceBatch(ids, torch.from_numpy(lengths), None, torch.ones(rows), random_numbers)
    return batch, task(batch)


@pytest.mark.parametrize("k", [1, 3, 4])
def test_baseline_copies_visible_kmers_and_looks_up_masked_ones(made, k):
    """The expected counts come from plain loops over the same masks, with tables of random ids."""
    draws = np.random.default_rng(k)
    bases = choose_context_bases(k)
    side = 5**bases + 1
    tables = [draws.integers(5, 5 + 5**k, size=(side, side)) for _ in range(2)]
    task = BaselineTask(k, 0.3, (7, 6), tables)
    batch, sums = run_task(made, task)
    masked, _, labels = task.mask_batch(batch)
    count = correct = inside = inside_correct = 0
    for row in range(len(masked)):
        read = masked[row].tolist()
        for position, label in enumerate(labels[row].tolist()):
            if label < 0:
                continue
            left, middle, right = read[position - 1], read[position], read[position + 1]
            context = (
                (left - 5) % 5**bases if left >= 5 else side - 1,
                (right - 5) // 5 ** (k - bases) if right >= 5 else side - 1,
            )
            begin = int(batch.draws.frame[row]) + (position - 1) * k
            within = begin >= 7 and begin + k <= int(batch.lengths[row]) - 6
            predictions = [middle if middle >= 5 else table[context] for table in tables]
            count, correct = count + 1, correct + (predictions[0] == label)
            inside, inside_correct = inside + within, inside_correct + (within and predictions[1] == label)
    assert (sums.count, sums.correct) == (count, correct)
    assert sums.inside.tolist() == [0, inside, inside_correct]
    assert 0 < inside < count


def test_language_model_sums_inside_the_insert_in_evaluation_only(made):
    torch.manual_seed(0)
    model = BertForMaskedLM(make_bert_config(made.config, read_index(made.shards)))
    task = PretrainTask(model, 3, 0.3, (7, 6)).eval()
    baseline = BaselineTask(3, 0.3, (7, 6), [np.full((126, 126), 5)] * 2)
    with torch.inference_mode():
        _, sums = run_task(made, task)
        _, baseline_sums = run_task(made, baseline)
        _, without_flanks = run_task(made, PretrainTask(model, 3, 0.3).eval())
    assert sums.inside[1] == baseline_sums.inside[1]
    assert 0 < sums.inside[0] < sums.loss
    whole = [float(value) for value in (without_flanks.loss, without_flanks.count, without_flanks.correct)]
    assert without_flanks.inside.tolist() == pytest.approx(whole)  # without flanks the insert is the whole sequence
    _, training = run_task(made, task.train())
    assert training.inside.tolist() == [0, 0, 0]


def test_baseline_scores_on_generated_promoters(made, alone):
    """The accuracy is at least that of the unchanged tenth, and does not depend on the micro-batch."""
    data = data_of(made)
    baselines = score_baselines(data, made.config.pretrain, 64, never)
    assert set(baselines) == {"most_frequent_kmer", "kmer_given_neighbours"}
    frequent, conditional = baselines["most_frequent_kmer"], baselines["kmer_given_neighbours"]
    table = [np.full((126, 126), vocabulary(3).index(frequent[name])) for name in ("kmer", "insert_kmer")]
    again = evaluate(BaselineTask(3, 0.15, (5, 5), table), "pretrain/valid", data, 64, never)
    assert again.values["accuracy"] == frequent["accuracy"]
    other = evaluate(BaselineTask(3, 0.15, (5, 5), table), "pretrain/valid", data, 5, never)
    assert other.values == again.values
    for scores in (frequent, conditional):
        for name in ("accuracy", "insert_accuracy"):
            assert 0.1 < scores[name] < 0.4
    assert conditional["accuracy"] > frequent["accuracy"]  # adjacent k-mers determine those of the flanks
    with pytest.raises(StopRequestError):
        score_baselines(data, made.config.pretrain, 64, lambda: True)
    assert data.index.rows("pretrain/train") < COUNTED


def score_on_rank(rank, made, rendezvous, results):
    torch.distributed.init_process_group("gloo", f"file://{rendezvous}", rank=rank, world_size=2)
    results[rank] = score_baselines(data_of(made, rank, 2), made.config.pretrain, 13, never)
    torch.distributed.destroy_process_group()


def test_baseline_scores_of_two_ranks_equal_those_of_one(made, alone, tmp_path):
    """All counts are whole numbers, so the scores are exactly equal."""
    expected = score_baselines(data_of(made), made.config.pretrain, 64, never)
    context = torch.multiprocessing.get_context("spawn")
    with context.Manager() as manager:
        results = manager.dict()
        torch.multiprocessing.spawn(score_on_rank, (made, tmp_path / "rendezvous", results), nprocs=2)
        assert dict(results) == {0: expected, 1: expected}


def test_evaluation_of_an_untrained_language_model(made, alone):
    """Its perplexity per base is near that of uniformly distributed bases."""
    torch.manual_seed(0)
    task = PretrainTask(BertForMaskedLM(make_bert_config(made.config, read_index(made.shards))), 3, 0.15, (5, 5))
    values = evaluate(task, "pretrain/valid", data_of(made), 64, never).values
    assert set(values) == {f"{p}{n}" for p in ("", "insert_") for n in ("loss", "accuracy", "base_perplexity")}
    assert values["base_perplexity"] == pytest.approx(np.exp(values["loss"] / 3))
    assert 4 < values["insert_base_perplexity"] < 5.5
    assert task.training
