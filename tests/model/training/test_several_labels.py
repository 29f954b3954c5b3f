"""A training on two labels with missing values: scores, files, relation, stock export, card, pages, predictions."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from scipy.stats import pearsonr, spearmanr
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from model.prediction.predictor import Predictor
from model.reporting.compare_page import compare_runs
from model.reporting.run_page import write_report
from model.runs.metrics_file import read_metrics
from model.training.messages import describe_summary
from model.training.train import train
from pipeline.dataset.database import open_dataset
from pipeline.shards.index import read_index
from tests.several_labels import LABELS, make_two_labels

pytestmark = pytest.mark.processes

SETTINGS = (
    "dataset.finetune_test=0.25", "model.hidden=32", "model.dropout=0.0", "finetune.start=scratch",
    "finetune.learning_rate=3e-3", "finetune.global_batch=16", "finetune.max_epochs=10", "finetune.evaluate_every=5",
)  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    two = make_two_labels(tmp_path_factory.mktemp("two"), 600, *SETTINGS)
    return two, train(two.config)


@pytest.fixture(scope="module")
def held_out(trained):
    """Ids, sequences and labels (rows, 2) of the test split."""
    two, _ = trained
    columns = ", ".join(f'"{name}"' for name in LABELS)
    with open_dataset(two.config.dataset.path) as connection:
        rows = connection.execute(
            f"select id, sequence, {columns} from finetune where split = 'test' order by id"
        ).fetchall()
    ids, sequences, *labels = zip(*rows, strict=True)
    return list(ids), list(sequences), np.array(labels, float).T


def test_both_labels_are_learned_and_scored(trained, held_out):
    two, summary = trained
    _, sequences, labels = held_out
    predictions = Predictor(two.config.run.directory).predict(sequences)
    score = summary["scores"]["test"]
    for place, name in enumerate(LABELS):
        present = np.isfinite(labels[:, place])
        assert 0 < present.sum() < len(labels)
        x, y = predictions[present, place].astype(float), labels[present, place]
        assert score[f"pearson/{name}"] == pytest.approx(pearsonr(x, y).statistic, abs=1e-4)
        assert score[f"spearman/{name}"] == pytest.approx(spearmanr(x, y).statistic, abs=1e-3)
        assert score[f"pearson/{name}"] > 0.85
        assert score[f"r2/{name}"] > 0.5
        low, high = score["intervals"][f"pearson/{name}"]
        assert low < score[f"pearson/{name}"] < high
    for metric in ("pearson", "spearman", "mse", "r2"):
        assert score[metric] == pytest.approx(np.mean([score[f"{metric}/{name}"] for name in LABELS]))
    index = read_index(two.shards)
    errors = ((predictions - labels) / index.label_sd)[np.isfinite(labels)]
    assert score["loss"] == pytest.approx(np.mean(errors**2), rel=1e-4)
    assert (score["rows"], summary["units"]["labels"]) == (len(labels), LABELS)
    shown = describe_summary(summary)
    assert f"B: Pearson {score['pearson/B']:.4f}" in shown


def test_the_mean_pearson_selects_the_best_weights(trained):
    two, summary = trained
    lines = [line for line in read_metrics(two.config.run.directory / "metrics.jsonl") if "valid_pearson" in line]
    assert all(
        line["valid_pearson"] == pytest.approx(np.mean([line[f"valid_pearson/{name}"] for name in LABELS]))
        for line in lines
    )
    best = max(lines, key=lambda line: line["valid_pearson"])
    stage = summary["training"]["finetune"]
    assert (stage["best"], stage["best_step"]) == (best["valid_pearson"], best["step"])


def test_predictions_are_in_long_form_in_file_and_relation(trained, held_out):
    two, _ = trained
    ids, sequences, _ = held_out
    table = pq.read_table(two.config.run.directory / "predictions.parquet")
    assert table.column_names == ["id", "split", "prediction", "label"]
    expected = Predictor(two.config.run.directory).predict(sequences)
    with open_dataset(two.config.dataset.path) as connection:
        rows = connection.execute("select id, prediction, label from predictions where split = 'test'").fetchall()
    found = {(number, label): prediction for number, prediction, label in rows}
    assert len(rows) == len(found) == 2 * len(ids)
    got = np.array([[found[number, name] for name in LABELS] for number in ids])
    assert got == pytest.approx(expected, abs=1e-4)


def test_stock_transformers_loads_the_model(trained, held_out):
    two, _ = trained
    _, sequences, _ = held_out
    folder = two.config.run.directory / "model"
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert (model.config.id2label, model.config.label2id) == (dict(enumerate(LABELS)), {"A score": 0, "B": 1})
    assert (model.config.num_labels, model.config.problem_type) == (2, "regression")
    facts = model.config.promoter_bert
    assert (facts["labels"], len(facts["label_mean"]), len(facts["label_sd"])) == (LABELS, 2, 2)
    frames = tokenizer([sequences[0][frame:] for frame in range(3)], padding=True, return_tensors="pt")
    with torch.inference_mode():
        values = model.eval()(**frames).logits.mean(0).numpy()
    assert values == pytest.approx(Predictor(folder).predict(sequences[:1])[0], abs=1e-4)


def test_card_report_and_comparison_show_each_label(trained, tmp_path):
    two, summary = trained
    run, score = two.config.run.directory, summary["scores"]["test"]
    card = (run / "model" / "README.md").read_text()
    assert f"| test split | {score['rows']} | Pearson, B | {score['pearson/B']:.4f} |" in card
    assert "One output per label" in card or "one output per label: A score, B" in card
    report = write_report(run, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert report.missing == []
    for name in LABELS:
        assert f"{score[f'pearson/{name}']:.4f}" in page
        assert page.count(f"<title>Label {name}</title>") == 1
    compared = compare_runs([run], tmp_path / "compare.html")
    assert f"{score['pearson/A score']:.4f}" in (tmp_path / "compare.html").read_text()
    assert json.loads(json.dumps(compared.runs))[0]["scores"]["test"]["pearson"] == score["pearson"]
