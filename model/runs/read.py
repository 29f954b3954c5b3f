"""Reader of run directories, finished or not. This module does not import torch."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from model.artifacts.json_files import read_run_json
from model.artifacts.manifest import read_manifest
from model.artifacts.run_suggestions import no_run_error
from model.config import STAGES
from model.runs.metrics_file import read_metrics
from model.runs.status import STATUS, State, read_status
from model.scoring.scale import describe_scale_problem
from pipeline.config.schema import SEQUENCE_NAME
from pipeline.errors import UserError

SUMMARY_KEYS: dict[str, type] = {
    "run": str, "finished": str, "dataset_key": str, "shard_key": str, "training": dict, "scores": dict, "config": dict,
}  # fmt: skip
"""Required keys of summary.json and their types."""
RUN_KEYS: dict[str, type] = {
    "command": list, "config": dict, "ds_config": dict, "dataset_key": str, "shard_key": str, "packages": dict,
}  # fmt: skip
"""Required keys of run.json and their types."""
STATE_SENTENCES: dict[str, str] = {
    State.INTERRUPTED: "This run was interrupted.",
    State.FAILED: "This run failed.",
    State.USER_ERROR: "This run ended with an error.",
}
NOT_FINISHED = "This run is not finished: it is still training, was stopped or failed."
"""Sentence for all other states, as a killed process leaves the state that it had."""
REWRITE_NOTE = "run the training command again to write it"
"""Next step after the removal of a corrupt file."""


@dataclass(frozen=True)
class RunFiles:
    """Contents of a run directory. facts: run.json; summary: None while the run is not finished."""

    folder: Path
    facts: dict[str, Any]
    summary: dict[str, Any] | None
    metrics: list[dict[str, Any]]

    @property
    def name(self) -> str:
        """Return the name of the run."""
        return str(self.facts["config"]["run"]["name"])

    @property
    def config(self) -> Mapping[str, Mapping[str, Any]]:
        """Return the configuration. For a finished run, it is the configuration of its last start."""
        values: Mapping[str, Mapping[str, Any]] = (self.summary or self.facts)["config"]
        return values

    @property
    def sequence_name(self) -> str:
        """Return the word of the run's assay for one sequence (assay.name)."""
        return sequence_name(self.config)

    @property
    def unit(self) -> str:
        """Return the unit of expression (assay.unit); empty for arbitrary units, as in older runs."""
        return str(self.config["assay"].get("unit", ""))

    @property
    def baseline(self) -> Mapping[str, Any] | None:
        """Return method and settings of a run that promoter-bert baseline wrote; None for a training of train.py."""
        values: Mapping[str, Any] | None = (self.summary or {}).get("baseline") or self.facts.get("baseline")
        return values

    @property
    def method(self) -> str:
        """Name the method of the run."""
        return "BERT" if self.baseline is None else METHODS[self.baseline["method"]]

    @property
    def is_pretrained(self) -> bool:
        """Return whether the run was pretrained on its own dataset, or is going to be."""
        if self.baseline is not None:
            return False
        finetune = self.config["finetune"]
        return "pretrain" in self.stages or (
            finetune["start"] != "scratch" and finetune.get("pretrained", "own") == "own"
        )

    @property
    def processes(self) -> int | None:
        """Return the number of processes of the last checkpoint; None without one, as in a baseline."""
        ranks = (
            manifest.layout.ranks
            for stage in reversed(STAGES)
            for folder in sorted((self.folder / "checkpoints" / stage).glob("step-*"), reverse=True)
            if (manifest := read_manifest(folder)) is not None and manifest.layout is not None
        )
        return next(ranks, None)

    @property
    def stages(self) -> list[str]:
        """Return the stages with logged metrics, in the order of training."""
        return [stage for stage in STAGES if any(line["stage"] == stage for line in self.metrics)]

    @property
    def scores(self) -> dict[str, dict[str, float]]:
        """Return the scores by split; empty while the run is not finished."""
        return dict(self.summary["scores"]) if self.summary else {}

    @property
    def labels(self) -> list[str]:
        """Return the names of the labels of a finished run if there are several, else an empty list."""
        return list(self.summary.get("units", {}).get("labels", [])) if self.summary else []

    @cached_property
    def state(self) -> str:
        """Describe the state of the run in a few sentences: finished, or its last logged step."""
        if self.summary is not None:
            return f"Finished on {self.summary['finished'].replace('T', ' at ')} UTC."
        state = STATE_SENTENCES.get(read_status(self.folder / STATUS).get("state", ""), NOT_FINISHED)
        if self.baseline is not None:
            return f"{state} Run the same command to start it again."
        if not self.stages:
            return f"{state} Nothing was logged yet."
        stage = self.stages[-1]
        step = max(line["step"] for line in self.metrics if line["stage"] == stage)
        logged = datetime.fromtimestamp((self.folder / "metrics.jsonl").stat().st_mtime)
        return (
            f"{state} The last logged step is {step:,} of {stage}, on {logged:%Y-%m-%d at %H:%M}. "
            "Run the same train.py command to resume from the last checkpoint. This page shows the results so far."
        )

    @property
    def dataset_candidates(self) -> list[Path]:
        """Return the paths at which the run's dataset may be.

        The configured path may be relative to the folder in which the training was started, to the parent of run.path
        (if the files were moved together), or to the working directory.
        """
        folders = [Path(self.facts["started_in"])] if "started_in" in self.facts else []
        runs = Path(self.config["run"]["path"])
        if not runs.is_absolute() and ".." not in runs.parts:
            folders += self.folder.resolve().parents[len(runs.parts) :][:1]
        path = Path(self.config["dataset"]["path"])
        return list(dict.fromkeys(folder / path for folder in (*folders, Path())))

    def predictions(self) -> pa.Table | None:
        """Read id, split, prediction and label (null for one label) of the held-out promoters.

        With several labels there is one row per promoter and label. Returns None if there are no rows.
        Raises UserError if predictions.parquet cannot be read.
        """
        path = self.folder / "predictions.parquet"
        if not path.exists():
            return None
        try:
            table = pa.parquet.read_table(path)
            if "label" not in table.column_names:
                table = table.append_column("label", pa.nulls(table.num_rows, pa.string()))
            table = table.select(["id", "split", "prediction", "label"])
        except (pa.ArrowException, OSError, KeyError) as error:
            raise UserError(f"{path}: cannot be read: {str(error).splitlines()[0]}") from None
        return table if table.num_rows else None


def read_run(folder: Path) -> RunFiles:
    """Read a run directory, given as such or as the model folder in it.

    Raises UserError if the folder is neither, or its files are corrupt.
    """
    is_model = (folder / "config.json").exists() and not (folder / "run.json").exists()
    if is_model and (folder.resolve().parent / "run.json").exists():
        folder = folder.parent if folder.name else folder.resolve().parent
    if not (folder / "run.json").exists():
        raise no_run_error(folder, "expected a run directory of train.py, such as runs/demo")
    summary = folder / "summary.json"
    return RunFiles(
        folder,
        read_run_json(folder / "run.json", RUN_KEYS, REWRITE_NOTE),
        read_run_json(summary, SUMMARY_KEYS, REWRITE_NOTE) if summary.exists() else None,
        read_metrics(folder / "metrics.jsonl"),
    )


def find_baselines(run: RunFiles) -> list[RunFiles]:
    """Find the finished baselines beside a run, in the same folder, on the same dataset and splits; by name.

    Directories that are no readable runs are skipped.
    """
    found = []
    folder = run.folder if run.folder.name else run.folder.resolve()
    for path in sorted(folder.parent.glob("*/summary.json")):
        with suppress(UserError):
            other = read_run(path.parent)
            if other.baseline is not None and other.facts["dataset_key"] == run.facts["dataset_key"]:
                found.append(other)
    return [] if run.baseline is not None else found


def held_out_split(scores: Mapping[str, Any]) -> str | None:
    """Choose the split whose scores are shown: the test split, or the validation split; None for an unfinished run."""
    return "test" if "test" in scores else next(iter(scores), None)


def sequence_name(config: Mapping[str, Any]) -> str:
    """Read assay.name from a recorded configuration; older runs do not record it."""
    return str(config["assay"].get("name", SEQUENCE_NAME))


def hides_spans(run: RunFiles) -> bool:
    """Return whether the pretraining of a run hides spans of bases; older runs have no such setting."""
    return bool(run.config.get("pretrain", {}).get("objective") == "spans")


SPLITS = {"valid": "validation", "test": "test"}
"""Split -> its name on a page."""
VALIDATION_CHOSE = "also chose the saved weights (of ridge regression: the regularization strength)"
"""Why scores on the validation split are optimistic."""
METHODS = {"ridge": "ridge regression on 1- to 6-mers", "cnn": "CNN"}
"""Method of promoter-bert baseline -> its name for a reader."""
BASELINES = {
    "most_frequent_kmer": "most frequent k-mer",
    "kmer_given_neighbours": "most likely k-mer between its neighbours",
    "most_frequent_base": "most frequent base",
}
"""Baseline in summary.json -> its name for a reader."""


def warn_below_baseline(masked: Mapping[str, Any]) -> str:
    """Warn if the best pretrained model is less accurate than the baseline of the most frequent k-mer, or base.

    masked: entry `masked` of summary.json. Returns a sentence without a full stop; an empty text otherwise.
    """
    for name, targets in (("most_frequent_kmer", "masked k-mers"), ("most_frequent_base", "hidden bases")):
        baseline = masked["baselines"].get(name)
        if baseline is not None and masked.get("accuracy", 1.0) < baseline["accuracy"]:
            problem = f"the pretrained model predicts {targets} worse than always guessing the most frequent one"
            return f"{problem}; train longer"
    return ""


def warn_of_scale(score: Mapping[str, Any]) -> list[str]:
    """Warn of predictions on another scale than the labels, per label. score: of a split, in summary.json."""
    problems: dict[str, dict[str, float]] = score.get("scale_problems", {})  # older runs do not record it
    return [f"{name}{': ' if name else ''}{describe_scale_problem(each)}" for name, each in problems.items()]


def list_scale_warnings(scores: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """List the warnings of warn_of_scale with their splits. scores: by split. Sentences without full stops."""
    return [
        f"{SPLITS.get(split, split)} split: {warning}"
        for split, score in scores.items()
        for warning in warn_of_scale(score)
    ]
