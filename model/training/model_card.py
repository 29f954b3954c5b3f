"""Write the model card: README.md of a Hugging Face model directory, with the values of its run."""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from jinja2 import Environment, PackageLoader, StrictUndefined

from model.prediction.example import PredictionExample, draw_promoter
from model.runs.read import list_scale_warnings, sequence_name
from pipeline.io.atomic import write_text
from pipeline.reporting.text import split_text
from pipeline.runtime.text import name_sequences
from pipeline.shards.index import Index

NAME = "README.md"
SPLITS = {"test": "test split", "valid": "validation split"}
METRICS = {"pearson": "Pearson", "spearman": "Spearman", "r2": "R²", "mse": "MSE"}
HUB_METRICS = {"pearson": "pearsonr", "spearman": "spearmanr", "r2": "r_squared", "mse": "mse"}
"""Id of each score on the Hugging Face Hub."""


def write_card(
    model: Path,
    summary: Mapping[str, Any],
    index: Index,
    example: PredictionExample | None = None,
    leaks: str = "",
) -> None:
    """Write the card into a model directory.

    summary: content of summary.json, which names the run directory with run.json; example: None for a card without
    the model's numbers; leaks: sentence about held-out rows that resemble training rows.
    """
    facts = json.loads((Path(summary["directory"]) / "run.json").read_text(encoding="utf-8"))
    write_text(model / NAME, render_card(summary, facts, index, example, leaks))


def render_card(
    summary: Mapping[str, Any],
    facts: Mapping[str, Any],
    index: Index,
    example: PredictionExample | None = None,
    leaks: str = "",
) -> str:
    """Render the card: YAML metadata for the Hub, then Markdown from templates/model_card.md."""
    # ModelCard.from_template is not used, as it ignores missing values and keeps an empty line per statement.
    environment = Environment(
        loader=PackageLoader("model.training"), trim_blocks=True, keep_trailing_newline=True, undefined=StrictUndefined
    )
    environment.filters["name_sequences"] = name_sequences
    return environment.get_template("model_card.md").render(
        metadata=_make_metadata(summary).to_yaml(), name=sequence_name(summary["config"]),
        summary=summary, config=summary["config"], facts=facts, index=index, splits=SPLITS,
        warnings=list_scale_warnings(summary["scores"]), leaks=leaks,
        split_method=split_text(summary["config"]["dataset"]["split"], summary["config"]["dataset"]["seed"]),
        metrics_of=partial(_title_metrics, labels=index.labels),
        example=example, numbers=partial(_format_numbers, labels=index.labels),
        promoter=example.promoter if example else draw_promoter(summary["config"]),
    )  # fmt: skip


def _title_metrics(score: Mapping[str, Any], labels: Sequence[str]) -> dict[str, str]:
    """Choose the metrics of a split for the table of scores: name -> title. labels: of several, with rows of their own.

    For one label these are METRICS, for several their means first.
    """
    means = {name: f"{title}, mean of the labels" if labels else title for name, title in METRICS.items()}
    each = {f"{name}/{label}": f"{title}, {label}" for label in labels for name, title in METRICS.items()}
    return {name: title for name, title in (means | each).items() if name in score}


def _format_numbers(values: Sequence[float], labels: Sequence[str]) -> str:
    """Format the numbers of an example. labels: names of several; empty for one."""
    names = [f"{label} " for label in labels] or [""]
    return ", ".join(f"{name}{value:.4f}" for name, value in zip(names, values, strict=True))


def _make_metadata(summary: Mapping[str, Any]) -> ModelCardData:
    scores = summary["scores"]
    word, architecture = sequence_name(summary["config"]), summary["config"]["model"].get("architecture", "bert")
    titles = _title_metrics(METRICS, summary.get("units", {}).get("labels", []))
    held_out = next((split for split in SPLITS if split in scores), None)  # the test split, or the validation split
    results = [
        EvalResult(
            task_type="text-classification", task_name=name_sequences("Expression of a promoter (regression)", word),
            dataset_type=f"{word}s", dataset_name=f"{word}s, {SPLITS[held_out]}", dataset_split=held_out,
            metric_type=HUB_METRICS[name], metric_name=title, metric_value=round(scores[held_out][name], 6),
        )
        for name, title in titles.items()
        if held_out and name in scores[held_out]
    ]  # fmt: skip
    return ModelCardData(
        library_name="transformers",
        pipeline_tag="text-classification",
        tags=["biology", "genomics", "dna", word, "gene-expression", "regression", architecture, "k-mers"],
        metrics=["pearsonr", "spearmanr"],
        model_name=f"promoter-bert-{summary['run']}" if results else None,
        eval_results=results or None,
    )
