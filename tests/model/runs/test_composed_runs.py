"""Runs of a ModernBERT with composed k-mer embeddings, Muon and a one-cycle learning rate: resume, and their models."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from safetensors.numpy import load_file
from safetensors.torch import load_file as load_torch
from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification

from model.bert.kmer_embedding import COMPOSITION
from model.prediction.predictor import Predictor
from pipeline.errors import UserError
from tests.model.run_fixtures import held_out_rows
from tests.model.runs.trainer import KilledError, kill, weights

pytestmark = pytest.mark.processes

SETTINGS = (
    "model.architecture=modernbert", "model.kmer_embedding=composed", "model.layers=2", "model.attention_window=8",
    "finetune.warm_up=0", "finetune.schedule=onecycle", "finetune.weight_decay=0.01", "pretrain.schedule=cosine",
    "pretrain.gradient_clipping=0.5", "finetune.optimizer=muon",
)  # fmt: skip
RUN = Path("runs/composed")


@pytest.fixture(scope="module")
def whole(trainer, tmp_path_factory):
    """The directory of an uninterrupted run of both stages."""
    folder = tmp_path_factory.mktemp("composed")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        trainer.train(*SETTINGS, "run.name=composed")
    return folder / RUN


def test_killed_run_resumes_with_the_same_bits(trainer, whole, tmp_path, monkeypatch, before_step):
    """Weights, the network of the k-mers and predictions; and the schedule refuses another number of epochs."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(whole / "pretrained", RUN / "pretrained")

    before_step(15, kill)
    with pytest.raises(KilledError):
        trainer.train(*SETTINGS, "run.name=composed", stages="finetune")
    with pytest.raises(UserError, match=r"finetune.max_epochs: 1 -> 2"):
        trainer.train(*SETTINGS, "run.name=composed", "finetune.max_epochs=2", stages="finetune")
    before_step(0, kill)
    trainer.train(*SETTINGS, "run.name=composed", stages="finetune")
    assert weights(RUN) == weights(whole)
    pretrained, tuned = (load_torch(whole / part / COMPOSITION)["pairs"] for part in ("pretrained", "model"))
    assert pretrained[-1, -1] > 1000  # k-mers of the pretraining split, from which fine-tuning starts
    assert torch.equal(pretrained, tuned)
    network = [(run / "model" / COMPOSITION).read_bytes() for run in (RUN, whole)]
    assert network[0] == network[1]
    tables = [pyarrow.parquet.read_table(run / "predictions.parquet") for run in (RUN, whole)]
    assert tables[0].equals(tables[1])


def test_stock_transformers_and_predictor_give_the_predictions_of_the_run(made, whole):
    """The run scores its exported model; Predictor and stock classes read the same folder."""
    ids, sequences, _ = held_out_rows(made, "test")
    table = pyarrow.parquet.read_table(whole / "predictions.parquet")
    of_run = dict(zip(table["id"].to_pylist(), table["prediction"].to_pylist(), strict=True))
    predictor = Predictor(whole, device=torch.device("cpu"))
    expected = [of_run[i] for i in ids]
    assert predictor.predict_valid(pa.array(sequences)) == pytest.approx(np.array(expected), abs=1e-5)
    for kind, folder in (
        (AutoModelForSequenceClassification, whole / "model"),
        (AutoModelForMaskedLM, whole / "pretrained"),
    ):
        loaded, info = kind.from_pretrained(folder, output_loading_info=True)
        assert not any(info[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
        assert loaded.config.vocab_size == 130


def test_frozen_encoder_of_another_run_stays_and_tables_and_networks_are_told_apart(trainer, whole, finished, tmp_path):
    """Fine-tuning starts from the network, and its table is written with the same bits."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        other = f"finetune.pretrained={whole}/pretrained"
        trainer.train(*SETTINGS, "run.name=frozen", "finetune.start=frozen", other, "finetune.max_epochs=0.2")
        before, after = (load_file(f / "model.safetensors") for f in (whole / "pretrained", Path("runs/frozen/model")))
        shared = [name for name in before if name.startswith("model.")]
        assert len(shared) > 10
        for name in shared:
            np.testing.assert_array_equal(before[name], after[name])
        with pytest.raises(UserError, match="is a BERT; expected a ModernBERT") as error:
            trainer.train(*SETTINGS, "run.name=new", f"finetune.pretrained={finished}/pretrained")
        assert "\n" not in str(error.value)
        with pytest.raises(UserError, match="its k-mer embedding is a table") as error:
            trainer.train("model.kmer_embedding=composed", "run.name=new", f"finetune.pretrained={finished}/pretrained")
        assert "\n" not in str(error.value)
        with pytest.raises(UserError, match="local_attention: expected 4, got 8"):
            trainer.train(*SETTINGS, "model.attention_window=4", "run.name=new", other)
        assert not Path("runs/new").exists()
