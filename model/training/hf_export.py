"""A trained task -> a stock Hugging Face directory, in float32, at any ZeRO stage and precision."""

import json
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from transformers import BertForSequenceClassification, PreTrainedModel, PreTrainedTokenizerFast

from model.config import Config
from model.distributed.process_group import broadcast
from pipeline.errors import UserError
from pipeline.tokens.hf_tokenizer import build_tokenizer
from pipeline.tokens.kmers import SPECIALS

TOKENIZER_CLASS = "PreTrainedTokenizerFast"


def frozen_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """The weights of a model that are not trained, before an engine rounds or shards them."""
    return {n: p.detach().cpu().clone() for n, p in model.named_parameters() if not p.requires_grad}


def master_weights(engine: Any, world_leads: bool) -> dict[str, torch.Tensor] | None:
    """The float32 weights of the engine's BERT that are trained, on rank 0; every rank must call this.

    Raises UserError on every rank where one of them is not finite.
    """
    from deepspeed.utils import safe_get_full_fp32_param

    weights = {}
    finite = True
    for name, parameter in engine.module.model.named_parameters():
        if not parameter.requires_grad:
            continue
        full = safe_get_full_fp32_param(parameter)
        full = parameter if full is None else full  # ZeRO stage 0 in float32 keeps no other copy
        if world_leads:
            weights[name] = full.detach().float().cpu().clone()
            finite &= bool(weights[name].isfinite().all())
    if not broadcast(finite):
        raise UserError("the weights are not finite any more; the last checkpoint is whole. Try a lower learning_rate")
    return weights if world_leads else None


def export_model(
    model: PreTrainedModel,
    weights: dict[str, torch.Tensor],
    config: Config,
    folder: Path,
    label_mean: float,
    label_sd: float,
) -> None:
    """Write model and tokenizer into a folder that is not there yet.

    For a regression model the label scaling goes into the last layer, so that its logits are expression values.
    Raises OSError where the disk is full.
    """
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not unexpected, unexpected
    # The output layer of the language model shares its weights with the embeddings, so they have one name only.
    assert all(name.startswith("cls.predictions.decoder") for name in missing), missing
    if isinstance(model, BertForSequenceClassification):
        with torch.no_grad():
            model.classifier.weight.mul_(label_sd)
            model.classifier.bias.mul_(label_sd).add_(label_mean)
    overlapping = isinstance(model, BertForSequenceClassification) and config.finetune.tokens == "overlapping"
    try:
        model.save_pretrained(folder)
        stock_tokenizer(config, overlapping).save_pretrained(folder)
        _name_for_both(folder / "tokenizer_config.json")
    except OSError:
        raise
    except Exception as error:  # safetensors and tokenizers have others, the latter a bare one
        if "os error" not in str(error):
            raise
        raise OSError(str(error)) from None


def _name_for_both(path: Path) -> None:
    """Write the tokenizer's class by the name that transformers 4 and 5 know: 5 writes another one."""
    settings = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**settings, "tokenizer_class": TOKENIZER_CLASS}, indent=2) + "\n", encoding="utf-8")


def stock_tokenizer(config: Config, overlapping: bool = False) -> PreTrainedTokenizerFast:
    """The tokenizer as transformers knows it."""
    names = ("pad_token", "cls_token", "unk_token", "sep_token", "mask_token")
    return PreTrainedTokenizerFast(
        tokenizer_object=build_tokenizer(config.assay, config.shards.k, overlapping),
        **dict(zip(names, SPECIALS, strict=True)),
    )


def broadcast_weights(model: nn.Module) -> None:
    """Give every rank rank 0's weights."""
    for tensor in model.state_dict().values():
        dist.broadcast(tensor, src=0)
