import hashlib
import json
import os
import random
import shutil
import signal
import time

import pytest

from model.tracking import read_metrics
from tests.integration.conftest import Workspace

CLOCK = ("promoters_per_second",)


def numbers(run):
    """All logged numbers that do not come from a clock."""
    return [{k: v for k, v in line.items() if k not in CLOCK} for line in read_metrics(run / "metrics.jsonl")]


def weights(folder):
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


@pytest.fixture
def copy(prepared, tmp_path):
    """The prepared data in a folder of its own."""
    shutil.copytree(prepared.folder, tmp_path / "work", ignore=shutil.ignore_patterns("runs"))
    return Workspace(tmp_path / "work")


def test_a_run_leaves_what_it_should(trained):
    run = trained.folder / "runs" / "paper"
    summary = json.loads((run / "summary.json").read_text())
    assert summary["scores"]["test"]["rows"] == summary["scores"]["valid"]["rows"] == 150
    facts = json.loads((run / "run.json").read_text())
    assert facts["packages"]["deepspeed"]
    assert facts["command"][0] == "train.py"
    for name in (
        "config.yaml",
        "metrics.jsonl",
        "predictions.parquet",
        "model/model.safetensors",
        "pretrained/config.json",
    ):
        assert (run / name).exists(), name
    assert list((run / "tensorboard").iterdir())
    stages = {(line["stage"], "valid_loss" in line) for line in read_metrics(run / "metrics.jsonl")}
    assert stages == {(stage, kind) for stage in ("pretrain", "finetune") for kind in (True, False)}
    assert len(list((run / "checkpoints" / "finetune").glob("step-*"))) == 2


def test_predictions_are_queried_beside_promoters(trained):
    joined = trained.run(
        "promoter-bert", "query", "--json",
        "select split, count(*) as n, corr(prediction, expression) as r from predictions join promoters using (id) "
        "where run = 'paper' group by split",
    )  # fmt: skip
    summary = json.loads((trained.folder / "runs/paper/summary.json").read_text())
    for row in json.loads(joined.stdout):
        assert row["n"] == 150
        assert row["r"] == pytest.approx(summary["scores"][row["split"]]["pearson"], abs=1e-5)
    logged = trained.run(
        "promoter-bert", "query", "--json", "select count(*) as n from metrics where metric = 'valid_pearson'"
    )
    assert json.loads(logged.stdout)[0]["n"] == 4


STOCK = """
import json, sys
from transformers import AutoModelForSequenceClassification, AutoModelForMaskedLM, AutoTokenizer
assert not any(name.split(".")[0] in ("pipeline", "model") for name in sys.modules)
tokenizer = AutoTokenizer.from_pretrained("runs/paper/model")
model = AutoModelForSequenceClassification.from_pretrained("runs/paper/model").eval()
AutoModelForMaskedLM.from_pretrained("runs/paper/pretrained")
AutoTokenizer.from_pretrained("runs/paper/pretrained")
out = []
for line in open("some.tsv"):
    extended = tokenizer.backend_tokenizer.normalizer.normalize_str(line.split("\\t")[0])
    k = model.config.promoter_bert["k"]
    frames = tokenizer([extended[f:] for f in range(k)], padding=True, return_tensors="pt")
    out.append(model(**frames).logits.mean().item())
print(json.dumps(out))
"""


def test_stock_transformers_gives_what_predict_and_the_run_gave(trained):
    """No code of ours in the process; rows of several lengths, and one with N."""
    rows = (trained.folder / "train_sequences.txt").read_text().splitlines(keepends=True)
    chosen = [*rows[:40], next(row for row in rows if "NN" in row)]
    (trained.folder / "some.tsv").write_text("".join(chosen))
    stock = json.loads(trained.run("python", "-I", "-c", STOCK).stdout)
    trained.run("promoter-bert", "predict", "runs/paper/model", "some.tsv", "-o", "some.predicted.tsv")
    predicted = [line.split("\t") for line in (trained.folder / "some.predicted.tsv").read_text().splitlines()]
    assert [sequence for sequence, _ in predicted] == [row.split("\t")[0] for row in chosen]
    assert [float(value) for _, value in predicted] == pytest.approx(stock, abs=1e-4)
    select = "select sequence, prediction from predictions join promoters using (id) where run = 'paper'"
    kept = trained.run("promoter-bert", "query", "--json", select)
    by_sequence = {row["sequence"]: row["prediction"] for row in json.loads(kept.stdout)}
    common = [(float(v), by_sequence[s]) for s, v in predicted if s in by_sequence]
    assert len(common) > 3
    assert [a for a, _ in common] == pytest.approx([b for _, b in common], abs=1e-4)


def test_a_finished_run_is_not_run_again(trained):
    before = weights(trained.folder / "runs/paper/model")
    again = trained.run("python", "train.py")
    assert "Pearson" in again.stdout
    assert "steps" not in again.stderr
    assert weights(trained.folder / "runs/paper/model") == before


@pytest.mark.timeout(600)
def test_killed_at_random_steps_it_ends_as_if_it_had_not_been(trained, copy):
    """kill -9 once in each stage, dropout on: the same weights bit for bit, the same numbers logged."""
    run = copy.folder / "runs" / "paper"
    moments = random.Random(3)
    for stage, steps in (("pretrain", (2, 8)), ("finetune", (12, 36))):  # checkpoints at 4, 8 and 10, 20, 30
        process = copy.start("python", "train.py")
        least = moments.randint(*steps)
        deadline = time.monotonic() + 120
        while not any(x["stage"] == stage and x["step"] >= least for x in read_metrics(run / "metrics.jsonl")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.005)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert not (run / "summary.json").exists()
    copy.run("python", "train.py")
    reference = trained.folder / "runs" / "paper"
    assert numbers(run) == numbers(reference)
    for model in ("pretrained", "model"):
        assert weights(run / model) == weights(reference / model)
    assert (
        json.loads((run / "summary.json").read_text())["scores"]
        == json.loads((reference / "summary.json").read_text())["scores"]
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["assay.flank=6", "run.name=other"], "write them again: promoter-bert shards"),
        (["shards.k=5", "run.name=other"], "no shards here"),
        (["pretrain.learning_rate=5e-3"], "started with another configuration"),
        (["dataset.path=none.duckdb", "run.name=other"], "no such dataset"),
        (["pretrain.lr=1"], "pretrain.lr: unknown key"),
        (["--deepspeed_config", "none.json"], "cannot read DeepSpeed's config"),
        (["--stage", "finetune", "run.name=other"], "run --stage pretrain first"),
    ],
)
def test_what_cannot_be_trained_is_a_clear_error(trained, arguments, message):
    done = trained.run("python", "train.py", *arguments, check=False)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
