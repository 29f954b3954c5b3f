"""What a run directory holds, read without torch: as much as is there, since a run may not be finished."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from model.artifacts.json_files import read_written
from model.config import STAGES
from model.runs.metric_log import read_metrics
from pipeline.errors import UserError

SUMMARY: dict[str, type] = {
    "run": str, "finished": str, "dataset_key": str, "shard_key": str, "training": dict, "scores": dict, "config": dict,
}  # fmt: skip
"""What summary.json is read for."""
FACTS: dict[str, type] = {
    "command": list, "config": dict, "ds_config": dict, "dataset_key": str, "shard_key": str, "packages": dict,
}  # fmt: skip
"""What run.json is read for."""
AGAIN = "and the training's own command writes it again"


@dataclass(frozen=True)
class RunFiles:
    """A run directory. facts: run.json; summary: None while the run is not finished."""

    folder: Path
    facts: dict[str, Any]
    summary: dict[str, Any] | None
    metrics: list[dict[str, Any]]

    @property
    def name(self) -> str:
        """What the run is called."""
        return str(self.facts["config"]["run"]["name"])

    @property
    def config(self) -> Mapping[str, Mapping[str, Any]]:
        """The configuration; that of its end where the run is finished."""
        whole: Mapping[str, Mapping[str, Any]] = (self.summary or self.facts)["config"]
        return whole

    @property
    def stages(self) -> list[str]:
        """Those that have logged something, in their order."""
        return [stage for stage in STAGES if any(line["stage"] == stage for line in self.metrics)]

    @property
    def scores(self) -> dict[str, dict[str, float]]:
        """By split; empty while the run is not finished."""
        return dict(self.summary["scores"]) if self.summary else {}

    @cached_property
    def state(self) -> str:
        """One sentence: finished, or how far it is."""
        if self.summary is not None:
            return f"Finished on {self.summary['finished'].replace('T', ' at ')} UTC."
        why = "This run is not finished: it is training still, or was stopped, or failed."
        if not self.stages:
            return f"{why} Nothing was logged yet."
        stage = self.stages[-1]
        step = max(line["step"] for line in self.metrics if line["stage"] == stage)
        logged = datetime.fromtimestamp((self.folder / "metrics.jsonl").stat().st_mtime)
        return (
            f"{why} The last that it logged is step {step:,} of {stage}, on {logged:%Y-%m-%d at %H:%M}. "
            "The same train.py command goes on from its last checkpoint; this page shows what is there."
        )

    @property
    def dataset_places(self) -> list[Path]:
        """Where the run's dataset may lie: its path as seen from where the training was started, from the folder in
        which the run lies as it did then (the whole may have moved), and from here."""
        folders = [Path(self.facts["started_in"])] if "started_in" in self.facts else []
        runs = Path(self.config["run"]["path"])
        if not runs.is_absolute() and ".." not in runs.parts:
            folders += self.folder.resolve().parents[len(runs.parts) :][:1]
        path = Path(self.config["dataset"]["path"])
        return list(dict.fromkeys(folder / path for folder in (*folders, Path())))

    def predictions(self) -> pa.Table | None:
        """id, split and prediction of the held-out promoters; None where there are none."""
        path = self.folder / "predictions.parquet"
        if not path.exists():
            return None
        try:
            table = pa.parquet.read_table(path, columns=["id", "split", "prediction"])
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{path}: cannot be read: {str(error).splitlines()[0]}") from None
        return table if table.num_rows else None


def read_run(folder: Path) -> RunFiles:
    """Raises UserError for a folder that is no run, and for files of it that are empty or damaged."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected a run directory such as runs/demo, which train.py makes")
    if not (folder / "run.json").exists():
        raise UserError(f"{folder}: no run (it holds no run.json); expected a folder of train.py, such as runs/demo")
    summary = folder / "summary.json"
    return RunFiles(
        folder,
        read_written(folder / "run.json", FACTS, AGAIN),
        read_written(summary, SUMMARY, AGAIN) if summary.exists() else None,
        read_metrics(folder / "metrics.jsonl"),
    )
