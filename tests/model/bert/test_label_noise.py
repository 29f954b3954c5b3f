"""Random Ns and the flag of whole numbers: input of fine-tuning in training only."""

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.bert.build import build_task
from model.bert.device_batch import batch_to_device, pass_to_device
from model.bert.length_cut import Pass
from model.bert.masking import hide_bases
from model.bert.rng import make_generator
from pipeline.errors import UserError
from pipeline.shards.index import read_index
from pipeline.tokens.kmers import ALPHABET, SPECIALS
from tests.conftest import small_config
from tests.model.bert import test_bins
from tests.model.bert.test_bins import enlarge

CPU = torch.device("cpu")
micro_batches = partial(test_bins.micro_batches, rows=60)


def encode(bases, k):
    """Encode the k-mer at each base; bases past the end are N."""
    digits = [ALPHABET.index(base) for base in bases + "N" * (k - 1)]
    ids = [sum(digits[i + place] * 5 ** (k - 1 - place) for place in range(k)) for i in range(len(bases))]
    return torch.tensor([one + len(SPECIALS) for one in ids])


@given(bases=st.text(alphabet=ALPHABET, min_size=1, max_size=30), k=st.integers(1, 8), data=st.data())
def test_hidden_bases_give_the_ids_of_the_sequence_with_ns(bases, k, data):
    hidden = data.draw(st.lists(st.booleans(), min_size=len(bases), max_size=len(bases)))
    with_ns = "".join("N" if is_hidden else base for base, is_hidden in zip(bases, hidden, strict=True))
    tokens = torch.nn.functional.pad(encode(bases, k), (0, 4))[None].int()  # 4 bases of padding
    mask = torch.nn.functional.pad(torch.tensor(hidden), (0, 4 + k - 1), value=True)[None]
    result = hide_bases(tokens, mask, k)
    assert torch.equal(result[0, : len(bases)], encode(with_ns, k))
    assert not result[0, len(bases) :].any()


def make_task(made, model=None, **finetune):
    torch.manual_seed(0)
    settings = {"model": {"dropout": 0.0, **(model or {})}, "finetune": finetune}
    changes = {name: getattr(made.config, name).model_copy(update=values) for name, values in settings.items()}
    task = build_task(made.config.model_copy(update=changes), read_index(made.shards), "finetune").train()
    enlarge(task.model)
    return task


def read_ids(made, task, batches, *position):
    """Collect the ids that the model reads, by the row in the global batch."""
    rows = {}
    for batch in batches:
        width, draws = task.choose_width(batch, CPU), task.draw(batch, make_generator(CPU, *position))
        here = batch_to_device(batch, width, draws, CPU)
        ids = hide_bases(here.tokens, here.draws.select < task.random_n, task.k)
        rows |= {batch.first_row + row: one for row, one in enumerate(ids) if batch.weight[row]}
    return torch.stack([rows[row] for row in sorted(rows)])


@pytest.mark.parametrize("tokens", ["frames", "overlapping"])
def test_random_ns_are_the_same_on_any_number_of_ranks_and_in_any_cut(made, tokens):
    task = make_task(made, tokens=tokens, random_n=0.2)
    whole = read_ids(made, task, micro_batches(made), "a step")
    assert len(whole) == 60
    for ranks, parts in ((2, 1), (3, 2)):
        assert torch.equal(read_ids(made, task, micro_batches(made, ranks, parts), "a step"), whole)
    assert torch.equal(read_ids(made, task, micro_batches(made), "a step"), whole)  # as a resumed step does
    assert not torch.equal(read_ids(made, task, micro_batches(made), "another step"), whole)

    (batch,) = micro_batches(made)
    draws = task.draw(batch, make_generator(CPU, "a step"))
    rows, width = np.array([3, 8, 40]), task.choose_width(batch, CPU) - 3
    cut = pass_to_device(batch, Pass(rows, width, is_full=False), draws, CPU)
    ids = hide_bases(cut.tokens, cut.draws.select < 0.2, 3)
    assert torch.equal(ids, whole[rows][:, :width])


def test_the_share_of_random_ns_is_that_of_the_setting_and_none_are_in_evaluation(made):
    task = make_task(made, random_n=0.1)
    (batch,) = micro_batches(made)
    ids = read_ids(made, task, [batch], "a step") - len(SPECIALS)
    inside = torch.arange(ids.shape[1]) < torch.from_numpy(batch.lengths)[:, None] - 2
    first = ids[inside] // 25  # the first base of each k-mer
    original = torch.from_numpy(batch.tokens).long()[:, : ids.shape[1]][inside] - len(SPECIALS)
    known = original // 25 != 4
    assert (first[known] == 4).float().mean() == pytest.approx(0.1, abs=0.015)  # 5,300 bases: 3.6 deviations
    assert torch.equal(first[first != 4], (original // 25)[first != 4])
    assert task.eval().draw(batch, make_generator(CPU, "a step")) is None
    assert make_task(made).draw(batch, make_generator(CPU, "a step")) is None


def run(task, batch, *position):
    draws = task.draw(batch, make_generator(CPU, *position))
    return task(batch_to_device(batch, task.choose_width(batch, CPU), draws, CPU))


@pytest.mark.parametrize("model", [{}, {"architecture": "modernbert", "attention_window": 6}])
def test_random_ns_change_predictions_in_training_only(made, model):
    task, plain = make_task(made, model, random_n=0.2), make_task(made, model)
    (batch,) = micro_batches(made)
    hidden, seen = run(task, batch, "a step").prediction, run(plain, batch, "a step").prediction
    assert (hidden - seen).abs().mean() > 1e-4
    assert torch.equal(run(task.eval(), batch, "a step").prediction, run(plain.eval(), batch, "a step").prediction)


@pytest.mark.parametrize("loss", ["mse", "bins"])
def test_token_type_1_marks_whole_numbers_in_training_only(made, loss):
    """The oracle gives all tokens the vector of token type 1."""
    task = make_task(made, whole_number_flag=True, loss=loss)
    (batch,) = micro_batches(made)
    is_whole = batch.expression % 1 == 0
    assert 10 < is_whole.sum() < 50
    flagged = run(task, batch).prediction
    plain = run(task.eval(), batch).prediction
    same = (flagged - plain).abs() < 1e-7
    assert same.tolist() == (~is_whole).tolist()
    with torch.no_grad():
        types = task.model.bert.embeddings.token_type_embeddings.weight
        types[0].copy_(types[1])
    torch.testing.assert_close(run(task, batch).prediction[is_whole], flagged[is_whole], rtol=1e-5, atol=1e-5)


def test_the_flag_needs_token_types_that_are_trained(tmp_path):
    flag = "finetune.whole_number_flag=true"
    with pytest.raises(UserError, match="modernbert has no token types"):
        small_config(tmp_path, flag, "model.architecture=modernbert")
    with pytest.raises(UserError, match="no token type is trained"):
        small_config(tmp_path, flag, "finetune.start=frozen")
    assert small_config(tmp_path, flag).finetune.whole_number_flag
    assert not {"bins", "random_n", "whole_number_flag"} & small_config(tmp_path).model_dump()["finetune"].keys()
