"""Build transformers' BERT or ModernBERT at the configured size, and the training objective around it."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # all files are local, so transformers must not look for downloads

import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertForTokenClassification,
    ModernBertConfig,
    ModernBertForMaskedLM,
    ModernBertForSequenceClassification,
    ModernBertForTokenClassification,
    PreTrainedModel,
)
from transformers.utils import logging as transformers_logging

from model.artifacts.manifest import read_manifest
from model.artifacts.model_directory import (
    ONE_LABEL,
    REGRESSION_MODELS,
    RESTORE,
    count_positions,
    read_model_facts,
    read_model_settings,
)
from model.bert.bins import bin_centres
from model.bert.kmer_embedding import ComposedKmerEmbedding, compose_embeddings, read_composition
from model.bert.objectives import BinsTask, FinetuneTask, PretrainTask
from model.bert.spans import SpanTask, name_base_outputs
from model.config import Config, StageName
from pipeline.errors import UserError
from pipeline.shards.index import Index
from pipeline.tokens.kmers import CLS, PAD, SEP, vocabulary_size

transformers_logging.disable_progress_bar()
transformers_logging.set_verbosity_error()  # it warns about a new pooler and head, which are intended

WEIGHTS = "model.safetensors"
SIZES = (
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
    "max_position_embeddings",
)  # fmt: skip
"""Keys of config.json that must be equal before the weights of one model can initialize another."""
WINDOWS = ("local_attention", "global_attn_every_n_layers")
"""Further such keys of a ModernBERT."""

EXPECTED_VALUE = "softmax(mean of the logits over the reading frames) @ bins"
"""How to compute the prediction of a model with bins from the outputs of stock transformers; config.json records it."""

Size: TypeAlias = BertConfig | ModernBertConfig


@dataclass(frozen=True)
class Architecture:
    """Classes of transformers for an architecture. name: for messages; span_model: of pretraining on hidden spans."""

    name: str
    language_model: Any
    span_model: Any
    regression_model: Any


ARCHITECTURES = {
    "bert": Architecture("BERT", BertForMaskedLM, BertForTokenClassification, BertForSequenceClassification),
    "modernbert": Architecture(
        "ModernBERT",
        ModernBertForMaskedLM,
        ModernBertForTokenClassification,
        ModernBertForSequenceClassification,
    ),
}
"""Architectures by the value of model.architecture, which is also `model_type` in config.json."""
assert {one.regression_model.__name__ for one in ARCHITECTURES.values()} == set(REGRESSION_MODELS)


def build_task(
    config: Config, index: Index, stage: StageName, start: Path | None = None
) -> PretrainTask | SpanTask | FinetuneTask:
    """Build the model of a stage and the objective around it.

    start: folder of the weights that fine-tuning starts from; None: random weights. Raises UserError if the folder has
    no weights of a composed k-mer embedding that the model needs.
    """
    is_composed = config.model.kmer_embedding == "composed"
    if stage == "pretrain":
        flanks = len(index.left_flank), len(index.right_flank)
        pretrain, architecture = config.pretrain, ARCHITECTURES[config.model.architecture]
        by_spans = pretrain.objective == "spans"
        kind = architecture.span_model if by_spans else architecture.language_model
        language_model = kind(make_pretraining_config(config, index))
        if is_composed:
            compose_embeddings(language_model, index.k, None)
        objective = SpanTask if by_spans else PretrainTask
        return objective(language_model, index.k, pretrain.mask_share, flanks, pretrain.masked == "insert")
    finetune = config.finetune
    model = build_regression_model(config, index, start)
    if is_composed:
        compose_embeddings(model, index.k, start)
    if finetune.start == "frozen":
        freeze_encoder(model)
    task: FinetuneTask
    if finetune.loss == "bins":
        task = BinsTask(model, index.k, finetune.tokens)
    else:
        task = FinetuneTask(model, index.k, index.label_mean, index.label_sd, finetune.tokens, finetune.loss)
    task.random_n, task.whole_number_flag = finetune.random_n, finetune.whole_number_flag
    return task


def freeze_encoder(model: PreTrainedModel) -> None:
    """Exclude embeddings and layers from training, which leaves the pooler or head, and the output layer."""
    for name, part in model.base_model.named_children():
        part.requires_grad_(name == "pooler")


def make_bert_config(config: Config, index: Index) -> Size:
    """Make the model's config of a run; its key `promoter_bert` records the assay and tokens for users of the model.

    The number of positions is the token count of the longest valid promoter with [CLS] and [SEP], rounded up to a
    multiple of 8.
    """
    model = config.model
    longest = count_positions(config.assay, index.k, config.finetune.tokens)
    centres = bin_centres(config)
    common = {
        "vocab_size": vocabulary_size(index.k),
        "hidden_size": model.hidden,
        "num_hidden_layers": model.layers,
        "num_attention_heads": model.heads,
        "intermediate_size": model.intermediate,
        "max_position_embeddings": -(-longest // 8) * 8,
        "pad_token_id": PAD,
        **_name_outputs(index, config.finetune.tokens, centres),
        "problem_type": "single_label_classification" if centres else "regression",
        "promoter_bert": {
            "k": index.k,
            "tokens": config.finetune.tokens,
            "reverse_complement": config.finetune.reverse_complement,
            "assay": config.assay.model_dump(),
            **({"labels": index.labels} if index.labels else {}),
            **({"bins": centres, "prediction": EXPECTED_VALUE} if centres else {}),
            **({"whole_number_flag": True} if config.finetune.whole_number_flag else {}),
            "label_mean": index.label_mean,
            "label_sd": index.label_sd,
            "dataset_key": index.dataset_key,
            "shard_key": index.key,
        },
    }
    if model.architecture == "bert":
        return BertConfig(**common, hidden_dropout_prob=model.dropout, attention_probs_dropout_prob=model.dropout)
    return ModernBertConfig(
        **common,
        # Not in attention: kernels without dropout are twice as fast on a CPU.
        **dict.fromkeys(("mlp_dropout", "classifier_dropout"), model.dropout),
        **dict.fromkeys(("cls_token_id", "bos_token_id"), CLS),
        **dict.fromkeys(("sep_token_id", "eos_token_id"), SEP),
        local_attention=model.attention_window,
        global_attn_every_n_layers=model.global_attention_every,
        classifier_pooling="mean",  # in a local layer the [CLS] reads only the first tokens
        reference_compile=False,
    )


def make_pretraining_config(config: Config, index: Index) -> Size:
    """Make the config of the model that pretraining trains. On hidden spans, its outputs are the bases of a token."""
    size = make_bert_config(config, index)
    if config.pretrain.objective == "spans":
        size.update({**_number(name_base_outputs(index.k)), "problem_type": None})
    return size


def _name_outputs(index: Index, tokens: str, centres: Sequence[float]) -> dict[str, Any]:
    """Make the settings of the model for the names of its outputs. tokens: frames or overlapping; centres: of bins.

    The name of a single output also says that one pass of the model reads one of several reading frames.
    """
    is_partial = tokens == "frames" and index.k > 1
    one = f"{ONE_LABEL} (one of {index.k} reading frames)" if is_partial else ONE_LABEL
    return _number([f"{centre:.9g}" for centre in centres] or index.labels or [one])


def _number(names: Sequence[str]) -> dict[str, Any]:
    """Make the settings of the model for outputs with these names."""
    return {"id2label": dict(enumerate(names)), "label2id": {name: place for place, name in enumerate(names)}}


def count_parameters(size: Size, is_composed: bool = False) -> int:
    """Count the trained weights of a regression model of this size, without allocating any."""
    with torch.device("meta"):
        model = ARCHITECTURES[size.model_type].regression_model(size)
        if is_composed:
            model.set_input_embeddings(ComposedKmerEmbedding(size.promoter_bert["k"], size.hidden_size))
        return sum(parameter.numel() for parameter in model.parameters())


def build_regression_model(config: Config, index: Index, pretrained: Path | None) -> Any:
    """Build a stock sequence classifier with a linear head of one output per label.

    pretrained: folder of the model that provides the weights of the encoder; None: random weights.
    """
    settings, model = make_bert_config(config, index), ARCHITECTURES[config.model.architecture].regression_model
    if pretrained is None:
        return model(settings)
    # The output layer of pretraining on spans has another size. check_pretrained has compared all others.
    return model.from_pretrained(pretrained, config=settings, attn_implementation="sdpa", ignore_mismatched_sizes=True)


def load_regression_model(folder: Path) -> Any:
    """Load a fine-tuned model of train.py. Raises UserError if the folder holds none, or a corrupt one."""
    read_model_facts(folder)
    if not (folder / WEIGHTS).is_file():  # transformers would also read pickles, and the files that an index names
        raise UserError(f"{folder / WEIGHTS}: no such file; expected the weights of train.py")
    settings = read_model_settings(folder, "")
    (name,) = settings["architectures"]
    model = next(one.regression_model for one in ARCHITECTURES.values() if one.regression_model.__name__ == name)
    try:
        attention = settings.get("_attn_implementation", "sdpa")  # transformers rejects values that it does not know
        return model.from_pretrained(folder, use_safetensors=True, attn_implementation=attention)
    except Exception as error:  # transformers raises errors of many types for an invalid config.json
        raise UserError(f"{folder}: the model cannot be loaded: {error}; {RESTORE}") from None


def check_pretrained(folder: Path, required: Size, is_composed: bool = False) -> None:
    """Check that fine-tuning a model of the required size can start from the model in a folder.

    is_composed: whether the fine-tuned model has a composed k-mer embedding. Raises UserError if the folder holds no
    masked language model, one of another architecture or size, one without the composition, or an unfinished one.
    """
    expected = "expected the folder runs/NAME/pretrained of another run"
    settings = read_model_settings(folder, expected, "pretrained")
    names = {kind.__name__: one.name for one in ARCHITECTURES.values() for kind in (one.language_model, one.span_model)}
    found = next(iter(settings.get("architectures") or ()), None)
    if found not in names:
        raise UserError(f"{folder}: not a masked language model; {expected}")
    own = ARCHITECTURES[required.model_type]
    if names[found] != own.name:
        raise UserError(
            f"finetune.pretrained: the model in {folder} is a {names[found]}; expected a {own.name}; fix: use the same "
            "model.architecture in both runs"
        )
    manifest = read_manifest(folder)  # missing if the user changed the model on purpose
    if manifest is not None and (manifest.progress is None or not manifest.progress.ended):
        raise UserError(
            f"finetune.pretrained: the pretraining of {folder} has not ended, so its weights may still improve; "
            "fix: finish that run first"
        )
    differences = [
        f"{name}: expected {getattr(required, name)}, got {settings.get(name)}"
        for name in (*SIZES, *(WINDOWS if required.model_type == "modernbert" else ()))
        if settings.get(name) != getattr(required, name)
    ]
    if differences:
        raise UserError(
            f"finetune.pretrained: the model in {folder} differs in size ({'; '.join(differences)}); "
            "fix: use the same shards.k, assay.flank and model section in both runs"
        )
    if is_composed:
        read_composition(folder, required.promoter_bert["k"], required.hidden_size)
