"""Run directories made without training: run.json by the real code, known metrics and predictions."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from scipy.stats import pearsonr, spearmanr

from model.runs.directory import open_run
from model.runs.metric_log import Tracker
from pipeline.dataset.database import open_dataset
from pipeline.dataset.synthetic.generate import true_expression_of
from pipeline.shards.index import read_index
from tests.conftest import small_config
from tests.pipeline.reporting.test_dataset_page import Reader

DS_CONFIG = {"zero_optimization": {"stage": 1}}
FINISHED = "2026-01-02T03:04:05"


def start(made, folder, *overrides):
    """Start a run directory as train.py does; config and dataset are those of the made shards."""
    place = str(made.config.run.directory.parent.parent)
    config = small_config(folder, f"dataset.path={place}/dataset.duckdb", f"shards.path={place}/shards", *overrides)
    open_run(config, read_index(made.shards), DS_CONFIG).close()
    return config.run.directory


def log(folder, readings=9):
    """Log both stages: metrics every 20 steps, and an evaluation after every third; all values differ."""
    draws = np.random.default_rng(5)
    with Tracker(folder, is_rank0=True) as tracker:
        for stage, metrics in (("pretrain", ("accuracy",)), ("finetune", ("pearson", "spearman"))):
            tracker.begin(stage, 0)
            for reading_number in range(1, readings + 1):
                step, epoch = 20 * reading_number, reading_number / 4
                values = {"loss": 4 / epoch + draws.random(), "learning_rate": 1e-3 * 0.5**reading_number}
                values |= {"promoters_per_second": 500 + 100 * draws.random()}
                if stage == "pretrain":
                    values["accuracy"] = draws.random()
                tracker.log(stage, step, epoch, values)
                if reading_number % 3 == 0:
                    valid_values = {f"valid_{name}": draws.random() for name in ("loss", *metrics)}
                    tracker.log(stage, step, epoch, valid_values)


def held_out_rows(made, split):
    with open_dataset(made.config.dataset.path) as connection:
        rows = connection.execute(
            "select id, sequence, expression from finetune where split = ? order by id", [split]
        ).fetchall()
    ids, sequences, labels = zip(*rows, strict=True)
    return np.array(ids), list(sequences), np.array(labels)


def finish(made, folder, splits=("valid", "test"), intervals=True):
    """Write predictions and summary as train.py does; a prediction is half of the label, plus noise."""
    draws = np.random.default_rng(7)
    parts, scores = [], {}
    for split in splits:
        ids, sequences, labels = held_out_rows(made, split)
        prediction = 5.3 + 0.5 * true_expression_of(sequences) + draws.normal(size=len(ids))
        parts.append(pa.table({"id": ids, "split": [split] * len(ids), "prediction": prediction}))
        error = float(np.mean((prediction - labels) ** 2))
        scores[split] = {
            "loss": error,
            "mse": error,
            "pearson": float(pearsonr(prediction, labels).statistic),
            "spearman": float(spearmanr(prediction, labels).statistic),
            "r2": 1 - error / labels.var(),
            "rows": len(ids),
        }
        if intervals:
            scores[split]["intervals"] = {"pearson": [0.111, 0.888], "spearman": [0.222, 0.777]}
    if parts:
        pa.parquet.write_table(pa.concat_tables(parts), folder / "predictions.parquet")
    facts = json.loads((folder / "run.json").read_text())
    training = {
        name: {"steps": 180, "best": 0.5, "best_step": 120, "seconds": seconds}
        for name, seconds in (("pretrain", 61.5), ("finetune", 3725.0))
    }
    summary = {
        "run": facts["config"]["run"]["name"],
        "finished": FINISHED, "directory": str(folder), "model": f"{folder}/model",
        "dataset": facts["config"]["dataset"]["path"], "dataset_key": facts["dataset_key"],
        "shard_key": facts["shard_key"], "training": training, "scores": scores, "config": facts["config"],
    }  # fmt: skip
    (folder / "summary.json").write_text(json.dumps(summary))
    return summary


def text_of(page):
    return " ".join(filter(None, Reader(page).text))


def section_text(page, heading):
    """Read the text of the section with this heading."""
    section = page[page.index(f"<h2>{heading}</h2>") :]
    return text_of(section[: section.index("</section>")])
