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
    best_between,
    context_bases,
    count_kmers,
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


def side_by_side(sequences, k):
    ids = [encode_text(sequence, k) for sequence in sequences]
    tokens = np.zeros((len(ids), max(map(len, ids)) + 3), np.int64)
    for row, found in enumerate(ids):
        tokens[row, : len(found)] = found
    return tokens, np.array(list(map(len, sequences)))


@pytest.mark.parametrize("k", [1, 2, 3, 4, 6])
def test_kmers_are_counted_as_the_text_says(k):
    draws = np.random.default_rng(k)
    sequences = ["".join(draws.choice(list("ACGTN"), size=n, p=[0.3, 0.2, 0.2, 0.25, 0.05])) for n in (40, 33, 9, 25)]
    flanks, reach = (5, 4), context_bases(k)
    names = vocabulary(k)[5:]
    contexts = vocabulary(reach)[5:]
    whole, inside = count_kmers(*side_by_side(sequences, k), k, flanks)
    for counts, left, right in ((whole, 0, 0), (inside, *flanks)):
        alone = dict.fromkeys(names, 0)
        before, behind = {}, {}
        for text in sequences:
            for at in range(left, len(text) - right - k + 1):
                kmer = text[at : at + k]
                alone[kmer] += 1
                if at >= k:
                    key = text[at - reach : at], kmer
                    before[key] = before.get(key, 0) + 1
                if at + 2 * k <= len(text):
                    key = text[at + k : at + k + reach], kmer
                    behind[key] = behind.get(key, 0) + 1
        assert counts[0].tolist() == list(alone.values())
        for table, expected in zip(np.split(counts[1:], 2), (before, behind), strict=True):
            rows, columns = np.nonzero(table)
            found = {(contexts[r], names[c]): table[r, c] for r, c in zip(rows, columns, strict=True)}
            assert found == expected


def test_neighbours_decide_where_they_tell():
    """A text in which only C stands between A and A, only G between T and T, and T is frequent elsewhere."""
    whole, _ = count_kmers(*side_by_side(["ACA" * 500 + "TGT" * 500 + "T" * 1000], 1), 1, (0, 0))
    best = best_between(whole)
    a, t, unknown = 0, 3, 5
    assert vocabulary(1)[best[a, a]] == "C"
    assert vocabulary(1)[best[unknown, unknown]] == "T"
    assert vocabulary(1)[best[t, unknown]] == "T"
    assert "N" not in {vocabulary(1)[number] for number in best.ravel()}  # it was never seen


def masks(made, task, rows=64):
    """What a task makes of generated rows, and what it was asked."""
    draws = np.random.default_rng(0)
    sequences = ["".join(draws.choice(list("ACGT"), size=n)) for n in draws.integers(30, 60, size=rows)]
    tokens, lengths = side_by_side(sequences, task.k)
    given = SimpleNamespace(global_rows=rows, global_lengths=lengths)
    ours = task.draw(given, make_generator(CPU, "guess"))
    here = torch.from_numpy(fit_width(tokens, task.choose_width(given, CPU)))
    batch = DeviceBatch(here, torch.from_numpy(lengths), None, torch.ones(rows), ours)
    return batch, task(batch)


@pytest.mark.parametrize("k", [1, 3, 4])
def test_a_guess_reads_what_is_in_sight_and_looks_up_the_rest(made, k):
    """Against plain loops over the same masks, with tables of random ids."""
    draws = np.random.default_rng(k)
    reach = context_bases(k)
    side = 5**reach + 1
    tables = [draws.integers(5, 5 + 5**k, size=(side, side)) for _ in range(2)]
    task = BaselineTask(k, 0.3, (7, 6), tables)
    batch, found = masks(made, task)
    masked, _, labels = task.mask_batch(batch)
    count = right = inside = inside_right = 0
    for row in range(len(masked)):
        read = masked[row].tolist()
        for place, label in enumerate(labels[row].tolist()):
            if label < 0:
                continue
            left, middle, after = read[place - 1], read[place], read[place + 1]
            context = (
                (left - 5) % 5**reach if left >= 5 else side - 1,
                (after - 5) // 5 ** (k - reach) if after >= 5 else side - 1,
            )
            begin = int(batch.draws.frame[row]) + (place - 1) * k
            within = begin >= 7 and begin + k <= int(batch.lengths[row]) - 6
            guesses = [middle if middle >= 5 else table[context] for table in tables]
            count, right = count + 1, right + (guesses[0] == label)
            inside, inside_right = inside + within, inside_right + (within and guesses[1] == label)
    assert (found.count, found.correct) == (count, right)
    assert found.inside.tolist() == [0, inside, inside_right]
    assert 0 < inside < count


def test_a_language_model_is_counted_inside_the_insert_in_evaluation_only(made):
    torch.manual_seed(0)
    model = BertForMaskedLM(make_bert_config(made.config, read_index(made.shards)))
    task = PretrainTask(model, 3, 0.3, (7, 6)).eval()
    guess = BaselineTask(3, 0.3, (7, 6), [np.full((126, 126), 5)] * 2)
    with torch.inference_mode():
        _, found = masks(made, task)
        _, guessed = masks(made, guess)
        _, everything = masks(made, PretrainTask(model, 3, 0.3).eval())
    assert found.inside[1] == guessed.inside[1]
    assert 0 < found.inside[0] < found.loss
    whole = [float(value) for value in (everything.loss, everything.count, everything.correct)]
    assert everything.inside.tolist() == pytest.approx(whole)  # without flanks all is insert
    _, training = masks(made, task.train())
    assert training.inside.tolist() == [0, 0, 0]


def test_both_guesses_on_generated_promoters(made, alone):
    """What the counts promise: a tenth in sight, a tenth swapped, and for the rest the share of the k-mer."""
    data = data_of(made)
    found = score_baselines(data, made.config.pretrain, 64, never)
    assert set(found) == {"most_frequent_kmer", "kmer_given_neighbours"}
    frequent, given = found["most_frequent_kmer"], found["kmer_given_neighbours"]
    table = [np.full((126, 126), vocabulary(3).index(frequent[name])) for name in ("kmer", "insert_kmer")]
    again = evaluate(BaselineTask(3, 0.15, (5, 5), table), "pretrain/valid", data, 64, never)
    assert again.values["accuracy"] == frequent["accuracy"]
    other = evaluate(BaselineTask(3, 0.15, (5, 5), table), "pretrain/valid", data, 5, never)
    assert other.values == again.values
    for scores in (frequent, given):
        for name in ("accuracy", "insert_accuracy"):
            assert 0.1 < scores[name] < 0.4
    assert given["accuracy"] > frequent["accuracy"]  # the flanks follow from their neighbours
    with pytest.raises(StopRequestError):
        score_baselines(data, made.config.pretrain, 64, lambda: True)
    assert data.index.rows("pretrain/train") < COUNTED


def of_two_ranks(rank, made, rendezvous, results):
    torch.distributed.init_process_group("gloo", f"file://{rendezvous}", rank=rank, world_size=2)
    results[rank] = score_baselines(data_of(made, rank, 2), made.config.pretrain, 13, never)
    torch.distributed.destroy_process_group()


def test_two_ranks_find_what_one_finds(made, alone, tmp_path):
    """Counts and hits are whole numbers: the same to the last bit."""
    expected = score_baselines(data_of(made), made.config.pretrain, 64, never)
    context = torch.multiprocessing.get_context("spawn")
    with context.Manager() as manager:
        results = manager.dict()
        torch.multiprocessing.spawn(of_two_ranks, (made, tmp_path / "rendezvous", results), nprocs=2)
        assert dict(results) == {0: expected, 1: expected}


def test_an_evaluation_gives_both_stages_numbers(made, alone):
    """A model that knows nothing has a perplexity near that of bases drawn with equal chances."""
    torch.manual_seed(0)
    task = PretrainTask(BertForMaskedLM(make_bert_config(made.config, read_index(made.shards))), 3, 0.15, (5, 5))
    values = evaluate(task, "pretrain/valid", data_of(made), 64, never).values
    assert set(values) == {f"{p}{n}" for p in ("", "insert_") for n in ("loss", "accuracy", "base_perplexity")}
    assert values["base_perplexity"] == pytest.approx(np.exp(values["loss"] / 3))
    assert 4 < values["insert_base_perplexity"] < 5.5
    assert task.training
