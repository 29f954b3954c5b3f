"""Read the facts that a trained model's directory records. Imports no torch, so a wrong path is reported at once."""

from pathlib import Path
from typing import Any

from model.artifacts.json_files import read_json
from model.artifacts.manifest import NAME, find_damage
from pipeline.errors import UserError


def model_of(folder: Path) -> Path:
    """Find the model's directory: this one, or the one inside a run's directory."""
    return folder / "model" if (folder / "run.json").exists() else folder


def facts_of_model(folder: Path) -> dict[str, Any]:
    """Read what a regression model that train.py wrote records of its assay: the keys under `promoter_bert`.

    folder: the model's, or its run's. Raises UserError if there is no such model.
    """
    folder = model_of(folder)
    expected = "expected the folder of a run that train.py made, runs/NAME, or runs/NAME/model"
    settings = settings_of(folder, expected)
    if settings.get("architectures") != ["BertForSequenceClassification"]:
        # transformers would silently give it a random head.
        raise UserError(f"{folder}: this model was pretrained only and predicts no expression; {expected}")
    return dict(settings["promoter_bert"])


def unfinished(folder: Path) -> str:
    """Return a warning if the model in a directory belongs to an unfinished run; else an empty text."""
    run = folder.resolve().parent
    if not (run / "run.json").exists() or (run / "summary.json").exists():
        return ""
    return (
        f"the run in {run} is not finished (it is still training, was stopped or failed): its model holds the best "
        "weights so far"
    )


def settings_of(folder: Path, expected: str) -> dict[str, Any]:
    """Read config.json of an intact model that train.py wrote. expected: for the error.

    Raises UserError if there is no model, or a corrupt one.
    """
    problem = find_damage(folder) if (folder / NAME).exists() else ""
    if problem:
        raise UserError(
            f"{folder}: the model is corrupt ({problem}); fix: run the training's own command, which restores it "
            f"from its checkpoints; if you changed it on purpose, remove its {NAME}"
        )
    path = folder / "config.json"
    if not path.is_file():
        raise UserError(f"{folder}: no model here; {expected}")
    settings = read_json(path)
    if "promoter_bert" not in settings:
        raise UserError(f"{folder}: not a model of promoter-bert (its config.json has no promoter_bert); {expected}")
    return dict(settings)
