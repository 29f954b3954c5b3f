"""Read the facts that a trained model's directory records.

This module does not import torch, so that a wrong path is reported at once.
"""

from pathlib import Path
from typing import Any

from model.artifacts.json_files import read_json
from model.artifacts.manifest import NAME, find_corruption
from pipeline.errors import UserError


def find_model_folder(folder: Path) -> Path:
    """Find the model directory: the folder itself, or `model` inside a run directory."""
    return folder / "model" if (folder / "run.json").exists() else folder


def read_model_facts(folder: Path) -> dict[str, Any]:
    """Read the assay, tokens and label scale that a fine-tuned model records under `promoter_bert` in config.json.

    folder: model directory or run directory. Raises UserError if it holds no fine-tuned model, or a corrupt one.
    """
    folder = find_model_folder(folder)
    expected = "expected a run directory of train.py, runs/NAME, or its model folder, runs/NAME/model"
    settings = read_model_settings(folder, expected)
    if settings.get("architectures") != ["BertForSequenceClassification"]:
        # transformers would silently add a random head.
        raise UserError(f"{folder}: this model was pretrained only, so it cannot predict expression; {expected}")
    return dict(settings["promoter_bert"])


def describe_unfinished_run(folder: Path) -> str:
    """Describe the run of a model directory if it is unfinished; return an empty text otherwise."""
    run = folder.resolve().parent
    if not (run / "run.json").exists() or (run / "summary.json").exists():
        return ""
    return (
        f"{run}: the run is not finished (still training, stopped or failed); its model holds the best weights so far"
    )


def read_model_settings(folder: Path, expected: str) -> dict[str, Any]:
    """Read config.json of an intact model of train.py. expected: the kind of folder to name in an error.

    Raises UserError if the folder holds no such model, or a corrupt one.
    """
    problem = find_corruption(folder) if (folder / NAME).exists() else ""
    if problem:
        raise UserError(
            f"{folder}: the model is corrupt ({problem}); fix: run the training command again, which restores the "
            f"model from its checkpoints; if you changed the model on purpose, remove its {NAME}"
        )
    path = folder / "config.json"
    if not path.is_file():
        raise UserError(f"{folder}: no model here; {expected}")
    settings = read_json(path)
    if "promoter_bert" not in settings:
        raise UserError(f"{folder}: not a model of promoter-bert (its config.json has no promoter_bert); {expected}")
    return dict(settings)
