import hashlib
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import time

import pytest

from model.runs.metrics_file import read_metrics
from tests.integration.conftest import ENVIRONMENT, Workspace

pytestmark = pytest.mark.processes

CLOCK = (
    "promoters_per_second",
    "tokens_per_second",
    "flop_utilisation",
    "data_wait",
    "memory_gigabytes",
    "seconds_left",
)


def numbers(run):
    """Return all logged numbers that do not depend on time."""
    return [{k: v for k, v in line.items() if k not in CLOCK} for line in read_metrics(run / "metrics.jsonl")]


def weights(folder):
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


@pytest.fixture
def copy(prepared, tmp_path):
    """Copy the prepared data to a separate folder."""
    shutil.copytree(prepared.folder, tmp_path / "work", ignore=shutil.ignore_patterns("runs"))
    return Workspace(tmp_path / "work")


def test_run_writes_its_files(trained):
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
        "model/README.md",
        "pretrained/config.json",
    ):
        assert (run / name).exists(), name
    assert list((run / "tensorboard").iterdir())
    stages = {(line["stage"], "valid_loss" in line) for line in read_metrics(run / "metrics.jsonl")}
    assert stages == {(stage, kind) for stage in ("pretrain", "finetune") for kind in (True, False)}
    assert len(list((run / "checkpoints" / "finetune").glob("step-*"))) in (2, 3)  # the last two and the best
    lines = [line for line in read_metrics(run / "metrics.jsonl") if line["stage"] == "finetune"]
    rates = {line["step"]: line["learning_rate"] for line in lines if "learning_rate" in line}
    assert (rates[10], rates[20]) == pytest.approx((1e-3 * 10 / 15, 1e-3))  # warmed up in 15 steps
    assert min(line["memory_gigabytes"] for line in lines if "learning_rate" in line) > 0.1
    masked = summary["masked"]
    evaluated = {x["step"]: x for x in read_metrics(run / "metrics.jsonl") if "valid_accuracy" in x}
    for name in ("accuracy", "insert_accuracy", "base_perplexity", "insert_base_perplexity"):
        assert masked[name] == evaluated[summary["training"]["pretrain"]["best_step"]][f"valid_{name}"]
    for baseline in ("most_frequent_kmer", "kmer_given_neighbours"):
        assert 0.1 < masked["baselines"][baseline]["insert_accuracy"] < 0.4
    training = summary["training"]["finetune"]
    assert training["steps"] == 38
    evaluations = {x["step"]: x for x in read_metrics(run / "metrics.jsonl") if "valid_pearson" in x}
    assert training["best"] == evaluations[training["best_step"]]["valid_pearson"]
    assert training["best"] == max(x["valid_pearson"] for x in evaluations.values())


def test_predictions_are_queried_beside_promoters(trained):
    joined = trained.run(
        "promoter-bert", "query", "--json",
        "select split, count(*) as n, corr(prediction, expression) as r, avg((prediction - expression) ** 2) as mse, "
        "1 - mse / var_pop(expression) as r2 from predictions join promoters using (id) where run = 'paper' "
        "group by split",
    )  # fmt: skip
    summary = json.loads((trained.folder / "runs/paper/summary.json").read_text())
    for row in json.loads(joined.stdout):
        assert row["n"] == 150
        scores = summary["scores"][row["split"]]
        assert row["r"] == pytest.approx(scores["pearson"], abs=1e-5)
        assert (row["mse"], row["r2"]) == pytest.approx((scores["mse"], scores["r2"]), abs=1e-4)
        for name in ("pearson", "spearman"):
            low, high = scores["intervals"][name]
            assert -1 <= low < scores[name] < high <= 1
    logged = trained.run(
        "promoter-bert",
        "query",
        "--json",
        "select count(*) as n from metrics where run = 'paper' and metric = 'valid_pearson'",
    )
    assert json.loads(logged.stdout)[0]["n"] == 4


def test_models_record_their_assay_and_only_the_final_one_its_insert_lengths(trained):
    facts = [
        json.loads((trained.folder / "runs/paper" / name / "config.json").read_text())["promoter_bert"]
        for name in ("pretrained", "model")
    ]
    names = ["assay", "dataset_key", "k", "label_mean", "label_sd", "reverse_complement", "shard_key", "tokens"]
    assert [sorted(values) for values in facts] == [names, sorted([*names, "insert_lengths"])]
    shortest, longest = facts[1].pop("insert_lengths")
    assert facts[0] == facts[1]
    select = "select strlen(sequence) - 30 as bases from finetune where split = 'train'"
    rows = json.loads(
        trained.run("promoter-bert", "query", "--json", f"select min(bases), max(bases) from ({select})").stdout
    )
    assert [list(row.values()) for row in rows] == [[shortest, longest]]


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


def test_stock_transformers_equals_predict_and_the_run(trained):
    """The process imports no code of the project; rows of several lengths, and one with N."""
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
    assert "finished on" in again.stdout
    assert "steps" not in again.stderr
    assert weights(trained.folder / "runs/paper/model") == before
    more = trained.run("python", "train.py", "finetune.max_epochs=2", check=False)
    assert more.returncode == 1
    assert "is finished and cannot be trained longer (finetune.max_epochs: 1" in more.stderr


@pytest.mark.long
def test_run_keeps_its_scores_if_the_dataset_is_in_use(copy):
    """The run ends with its scores; the next start publishes them in the dataset."""
    holder = "import duckdb, time; c = duckdb.connect('dataset.duckdb', read_only=True); print(1, flush=True); input()"
    runs = "select run, finished is not null as finished, test_pearson from runs where run = 'held'"
    with subprocess.Popen(
        ["python", "-c", holder], cwd=copy.folder, env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        first = copy.run("python", "train.py", "finetune.start=scratch", "run.name=held")
        assert "Pearson" in first.stdout
        assert "not in the dataset yet" in first.stdout
        assert "\npretrain " not in first.stdout  # it is not run
        assert re.search(r"\nfinetune .* in 1 epoch\n", first.stdout)
        assert json.loads(copy.run("promoter-bert", "query", "--json", runs).stdout) == []
        process.communicate(b"\n")
    copy.run("python", "train.py", "finetune.start=scratch", "run.name=held")
    (row,) = json.loads(copy.run("promoter-bert", "query", "--json", runs).stdout)
    assert row["finished"]
    copy.run("promoter-bert", "build", "train_sequences.txt")  # the same dataset again
    assert json.loads(copy.run("promoter-bert", "query", "--json", runs).stdout) == [row]
    refused = copy.run("promoter-bert", "build", "train_sequences.txt", "dataset.seed=5", check=False)
    assert (refused.returncode, "--replace" in refused.stderr) == (1, True)
    other = copy.run("promoter-bert", "build", "train_sequences.txt", "dataset.seed=5", "--replace")
    assert "had other rows or splits" in other.stdout


def test_ctrl_c_prints_how_to_resume(copy):
    process = subprocess.Popen(
        ["python", "train.py"], cwd=copy.folder, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    while not (copy.folder / "runs/paper/metrics.jsonl").exists():
        time.sleep(0.05)
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "; run the same command to resume" in output
    assert "Traceback" not in errors


def test_a_missing_shard_is_noticed_before_anything_is_trained(copy):
    (copy.folder / "shards/k3/finetune/valid-000000.tar").unlink()
    done = copy.run("python", "train.py", check=False)
    assert done.returncode == 1
    assert "such as finetune/valid-000000.tar; fix: promoter-bert shards" in done.stderr
    assert not (copy.folder / "runs/paper").exists()


def test_port_in_use_is_named(copy):
    with socket.socket() as occupied:
        occupied.bind(("127.0.0.1", 0))
        occupied.listen()
        port = str(occupied.getsockname()[1])
        done = copy.run("deepspeed", "--master_port", port, "train.py", check=False)
    assert done.returncode == 1
    assert f"port {port}: already in use" in done.stderr


@pytest.mark.timeout(600)
def test_run_killed_at_random_steps_equals_an_uninterrupted_run(trained, copy):
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
        (
            ["assay.flank=6", "run.name=other"],
            "stale (assay.flank: 5 -> 6); fix: promoter-bert shards assay.flank=6\n",
        ),
        (["shards.k=5", "--stage", "both", "run.name=other"], "shards/k5/index.json); fix: promoter-bert shards"),
        (["pretrain.learning_rate=5e-3"], "started with another configuration"),
        (["dataset.path=none.duckdb", "run.name=other"], "no such dataset"),
        (["dataset.seed=7", "run.name=other"], "dataset.seed is 7, but dataset.duckdb was built with 0"),
        (["pretrain.lr=1"], "pretrain.lr: unknown key"),
        (["--deepspeed_config", "none.json"], "none.json: no such file"),
        (["--stage", "finetune", "run.name=other"], "run --stage pretrain first"),
    ],
)
def test_invalid_trainings_are_a_clear_error(trained, arguments, message):
    done = trained.run("python", "train.py", *arguments, check=False)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
