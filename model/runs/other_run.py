"""What is known of the run whose pretraining another one starts from."""

import hashlib
import json
from pathlib import Path

from model.config import Config

HELD_OUT_BY = ("seed", "split", "max_mismatches", "duplicates", "finetune_valid", "finetune_test")
"""Settings of a dataset that decide which promoters are held out; finetune_train does not."""


def weights_hash(folder: Path) -> str:
    """The sha256 of a model's weights."""
    with (folder / "model.safetensors").open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def held_out_otherwise(folder: Path, config: Config) -> str:
    """A note where the run of a folder runs/NAME/pretrained held out others than this one, as far as its run.json says;
    else an empty text."""
    try:
        theirs = json.loads((folder.parent / "run.json").read_text(encoding="utf-8"))["config"]["dataset"]
    except (OSError, ValueError, KeyError, TypeError):  # the model was moved, say
        return ""
    ours = config.dataset.model_dump()
    differing = [name for name in HELD_OUT_BY if theirs.get(name) != ours[name]]
    if not differing:
        return ""
    found = [f"dataset.{name} {theirs.get(name)}, here {ours[name]}" for name in differing]
    return f"note: {folder} may have been trained on promoters that are held out here ({'; '.join(found)})"
