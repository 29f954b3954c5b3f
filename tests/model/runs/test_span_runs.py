"""Runs that pretrain on hidden spans, of a ModernBERT with composed k-mers and of a BERT with a table."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForTokenClassification

from model.bert.build import build_task
from model.bert.spans import name_base_outputs
from model.reporting.run_page import write_report
from pipeline.errors import UserError
from pipeline.shards.index import read_index
from tests.conftest import small_config
from tests.model.runs.trainer import KilledError, kill, weights

pytestmark = pytest.mark.processes

SPANS = ("pretrain.objective=spans", "finetune.tokens=overlapping", "finetune.max_epochs=0.3")
COMPOSED = (
    *SPANS, "model.architecture=modernbert", "model.kmer_embedding=composed", "model.layers=2",
    "model.attention_window=8", "pretrain.optimizer=muon", "finetune.optimizer=muon",
)  # fmt: skip
RUN = Path("runs/spans")


@pytest.fixture
def small(trainer):
    """The configuration of the run."""
    return small_config(trainer.made.rows.parent, *COMPOSED)


@pytest.fixture(scope="module")
def whole(trainer, tmp_path_factory):
    """The directory of an uninterrupted run of both stages."""
    folder = tmp_path_factory.mktemp("spans")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        trainer.train(*COMPOSED, "run.name=spans")
    return folder / RUN


def test_killed_pretraining_resumes_with_the_same_bits(trainer, whole, tmp_path, monkeypatch, before_step):
    monkeypatch.chdir(tmp_path)

    before_step(7, kill)
    with pytest.raises(KilledError):
        trainer.train(*COMPOSED, "run.name=spans")
    before_step(0, kill)
    trainer.train(*COMPOSED, "run.name=spans")
    assert weights(RUN) == weights(whole)
    assert weights(RUN, "pretrain") == weights(whole, "pretrain")


def test_fine_tuning_starts_from_the_stock_model_of_pretraining(made, whole, small):
    """All weights but those of the output layer."""
    stock, info = AutoModelForTokenClassification.from_pretrained(whole / "pretrained", output_loading_info=True)
    assert not any(info[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert list(stock.config.id2label.values()) == name_base_outputs(3)
    torch.manual_seed(0)
    task = build_task(small, read_index(made.shards), "finetune", whole / "pretrained")
    ids = torch.randint(5, 130, (4, 20))
    expected = stock.eval().model(input_ids=ids).last_hidden_state
    assert torch.allclose(task.model.eval().model(input_ids=ids).last_hidden_state, expected, atol=1e-6)
    assert torch.equal(task.model.head.dense.weight, stock.head.dense.weight)
    assert task.model.classifier.weight.shape == (1, small.model.hidden)


def test_scores_and_page_are_those_of_hidden_bases(whole, tmp_path, trainer):
    masked = json.loads((whole / "summary.json").read_text())["masked"]
    assert list(masked["baselines"]) == ["most_frequent_base"]
    baseline = masked["baselines"]["most_frequent_base"]
    assert baseline["base"] in "ACGT"
    assert 0.25 < baseline["accuracy"] < 0.5
    assert masked["base_perplexity"] == pytest.approx(2.718281828 ** masked["loss"])
    assert 2 < masked["base_perplexity"] < 5
    page = Path(write_report(whole, tmp_path / "report.html", trainer.dataset).page).read_text()
    assert "hidden bases" in page
    assert "masked k-mers" not in page


def test_spans_need_overlapping_tokens(trainer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="tokens is frames"):
        trainer.train("pretrain.objective=spans")
    assert not Path("runs").exists()


def test_bert_with_a_table_pretrains_on_spans(trainer, tmp_path, monkeypatch):
    """Another run starts from its pretraining, which is that of a BERT."""
    monkeypatch.chdir(tmp_path)
    result = trainer.train(*SPANS, "run.name=bert", stages="pretrain")
    assert result["masked"]["baselines"]["most_frequent_base"]["accuracy"] > 0.2
    other = f"finetune.pretrained={result['pretrained']}"
    trainer.train(*SPANS, "run.name=tuned", other)
    with pytest.raises(UserError, match="is a BERT; expected a ModernBERT"):
        trainer.train(*COMPOSED, "run.name=new", other)
