"""Read the facts that a trained model's directory records.

This module does not import torch, so that a wrong path is reported at once.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from model.artifacts.json_files import read_json
from model.artifacts.manifest import NAME, find_corruption
from model.artifacts.run_suggestions import Kind, no_model_error
from pipeline.config.schema import SEQUENCE_NAME, Assay
from pipeline.errors import UserError
from pipeline.tokens.kmers import vocabulary_size

ADAPTER = "adapter_config.json"
"""A file by which transformers loads the model of another folder, or one from the network."""
REGRESSION_MODELS = {"BertForSequenceClassification": "bert", "ModernBertForSequenceClassification": "modernbert"}
"""Classes of transformers that a fine-tuned model may have, with their `model_type`."""
LAYER_TYPES = ("full_attention", "sliding_attention")
"""Names of a ModernBERT's global and local layers in config.json; transformers 4 does not write them."""
ONE_LABEL = "expression"
"""Name of the label of a model that has one."""
RESTORE = "fix: restore the config.json that train.py wrote"


class ModelFacts(BaseModel):
    """Entry `promoter_bert` of config.json, as far as predictions use it."""

    model_config = ConfigDict(extra="allow", strict=True)

    k: Annotated[int, Field(ge=1, le=8)]
    assay: Assay
    tokens: Literal["frames", "overlapping"] = "frames"
    reverse_complement: bool = True
    insert_lengths: Annotated[list[int], Field(min_length=2, max_length=2)] | None = None
    """Shortest and longest insert of the fine-tuning training split, in bases; older models do not record it."""
    labels: list[Annotated[str, Field(min_length=1)]] = []
    bins: Annotated[list[Annotated[float, Field(allow_inf_nan=False)]], Field(min_length=2)] | None = None
    """Centres of the bins of a model whose prediction is an expected value over bins."""


def labels_of(facts: Mapping[str, Any]) -> list[str]:
    """Return the names of a model's labels if there are several; empty for one label. facts: of read_model_facts."""
    return list(facts.get("labels", []))


def model_labels(facts: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of a model's labels; ONE_LABEL for a model with one. facts: of read_model_facts."""
    return tuple(labels_of(facts) or [ONE_LABEL])


def find_model_folder(folder: Path) -> Path:
    """Find the model directory: the folder itself, or `model` inside a run directory."""
    return folder / "model" if (folder / "run.json").exists() else folder


def read_sequence_name(folder: Path) -> str:
    """Read the word of a model's assay for one sequence (assay.name). Raises UserError as read_model_facts does."""
    return str(read_model_facts(folder)["assay"].get("name", SEQUENCE_NAME))


def read_unit(folder: Path) -> str:
    """Read the unit of expression of a model's assay (assay.unit); empty for arbitrary units."""
    return str(read_model_facts(folder)["assay"].get("unit", ""))


def read_model_facts(folder: Path) -> dict[str, Any]:
    """Read the assay, tokens and label scale that a fine-tuned model records under `promoter_bert` in config.json.

    folder: model directory or run directory. Raises UserError if it holds no fine-tuned model, or a corrupt one.
    """
    folder = find_model_folder(folder)
    expected = "expected a run directory of train.py, runs/NAME, or its model folder, runs/NAME/model"
    settings = read_model_settings(folder, expected)
    if settings.get("architectures") not in [[name] for name in REGRESSION_MODELS]:
        # transformers would silently add a random head.
        raise UserError(f"{folder}: this model was pretrained only, so it cannot predict expression; {expected}")
    _check_facts(settings, folder / "config.json")
    return dict(settings["promoter_bert"])


def count_positions(assay: Assay, k: int, tokens: str) -> int:
    """Count the tokens of the longest valid promoter, [CLS] and [SEP] included. tokens: frames or overlapping."""
    bases = assay.max_insert + len(assay.left_flank) + len(assay.right_flank)
    return (bases // k if tokens == "frames" else bases) + 2


def _check_facts(settings: dict[str, Any], path: Path) -> None:
    """Check the values that predictions depend on. Raises UserError that names the first invalid one."""
    try:
        facts = ModelFacts.model_validate(settings["promoter_bert"])
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        name = ".".join(map(str, ("promoter_bert", *first["loc"])))
        raise UserError(f"{path}: {name}: {first['msg']}, got {first['input']!a:.100}; {RESTORE}") from None
    vocabulary, positions = vocabulary_size(facts.k), count_positions(facts.assay, facts.k, facts.tokens)
    layers = settings.get("num_hidden_layers")
    outputs, names = len(facts.labels or facts.bins or []) or 1, settings.get("id2label")
    size = settings.get("max_position_embeddings")
    (architecture,) = settings["architectures"]
    if settings.get("vocab_size") != vocabulary:
        problem = f"vocab_size: expected {vocabulary:,} for k = {facts.k}, got {settings.get('vocab_size')!a:.100}"
    elif not isinstance(size, int) or size < positions:
        problem = (
            f"max_position_embeddings: expected at least {positions:,} for {facts.assay.name}s of this assay, got "
            f"{size!a:.100}"
        )
    elif not isinstance(layers, int) or layers < 1:
        problem = f"num_hidden_layers: expected at least 1, got {layers!a:.100}"
    elif isinstance(names, dict) and len(names) != outputs:
        problem = f"id2label: expected one output per {'bin' if facts.bins else 'label'}, {outputs}, got {len(names)}"
    elif facts.labels and facts.bins:
        problem = f"promoter_bert.bins: expected none for several labels, got {len(facts.bins)}"
    elif settings.get("model_type") != REGRESSION_MODELS[architecture]:
        problem = f"model_type: expected {REGRESSION_MODELS[architecture]}, got {settings.get('model_type')!a:.100}"
    else:
        problem = _find_modernbert_problem(settings) if settings["model_type"] == "modernbert" else ""
    if not problem:
        return
    raise UserError(f"{path}: {problem}; {RESTORE}")


def _find_modernbert_problem(settings: dict[str, Any]) -> str:
    """Describe the first setting with which predictions would fail, or differ from those of stock transformers."""
    window, every = settings.get("local_attention"), settings.get("global_attn_every_n_layers")
    kinds, pooling = settings.get("layer_types"), settings.get("classifier_pooling")
    if not isinstance(window, int) or window < 2:
        return f"local_attention: expected at least 2, got {window!a:.100}"
    if not isinstance(every, int) or every < 1:
        return f"global_attn_every_n_layers: expected at least 1, got {every!a:.100}"
    if pooling != "mean":
        return f"classifier_pooling: expected mean, got {pooling!a:.100}"
    if isinstance(kinds, list) and kinds == [LAYER_TYPES[place % every > 0] for place in range(len(kinds))]:
        return ""
    return "" if kinds is None else f"layer_types: expected global layers every {every}, got {kinds!a:.100}"


def describe_unfinished_run(folder: Path) -> str:
    """Describe the run of a model directory if it is unfinished; return an empty text otherwise."""
    run = folder.resolve().parent
    if not (run / "run.json").exists() or (run / "summary.json").exists():
        return ""
    return (
        f"{run}: the run is not finished (still training, stopped or failed); its model holds the best weights so far"
    )


def read_model_settings(folder: Path, expected: str, kind: Kind = "model") -> dict[str, Any]:
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
        raise no_model_error(folder, expected, kind)
    settings = read_json(path)
    if not isinstance(settings, dict) or "promoter_bert" not in settings:
        raise UserError(f"{folder}: not a model of promoter-bert (its config.json has no promoter_bert); {expected}")
    if (folder / ADAPTER).exists():
        raise UserError(f"{folder / ADAPTER}: not a file of train.py, and names another model; fix: remove it")
    return dict(settings)
