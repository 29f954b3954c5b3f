"""Export a stage's weights as a stock Hugging Face directory, in float32, at any ZeRO stage and precision."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from transformers import BertForSequenceClassification, PreTrainedModel, PreTrainedTokenizerFast

from model.config import Config
from model.distributed.process_group import broadcast
from model.training.engine import StageEngine
from pipeline.errors import UserError
from pipeline.shards.index import Index
from pipeline.tokens.hf_tokenizer import build_tokenizer
from pipeline.tokens.kmers import SPECIALS

TOKENIZER_CLASS = "PreTrainedTokenizerFast"


@dataclass(frozen=True)
class Exporter:
    """Exports the model of a stage's engine. frozen: weights that are not trained, see frozen_weights."""

    config: Config
    index: Index
    frozen: dict[str, torch.Tensor]

    def export(self, engine: StageEngine, folder: Path) -> None:
        """Write the model into a directory that does not exist yet. All ranks call this.

        Raises OSError on every rank where the disk is full.
        """
        weights, problem = master_weights(engine), None
        if weights is not None:
            trained = engine.task.model
            model = type(trained)(trained.config)
            mean, sd = self.index.label_mean, self.index.label_sd
            try:
                export_model(model, self.frozen | weights, self.config, folder, mean, sd)
            except OSError as error:
                problem = str(error)
        problem = broadcast(problem)
        if problem is not None:
            raise OSError(problem)


def frozen_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """Copy the weights of a model that are not trained, before an engine rounds or shards them."""
    return {n: p.detach().cpu().clone() for n, p in model.named_parameters() if not p.requires_grad}


def master_weights(engine: StageEngine) -> dict[str, torch.Tensor] | None:
    """Gather the trained float32 weights of the engine's BERT on rank 0; None on the others. All ranks call this.

    Raises UserError on every rank where one of them is not finite.
    """
    from deepspeed.utils import safe_get_full_fp32_param

    weights = {}
    finite = True
    for name, parameter in engine.task.model.named_parameters():
        if not parameter.requires_grad:
            continue
        full = safe_get_full_fp32_param(parameter)
        full = parameter if full is None else full  # ZeRO stage 0 in float32 keeps no other copy
        if engine.world.is_rank0:
            weights[name] = full.detach().float().cpu().clone()
            finite &= bool(weights[name].isfinite().all())
    if not broadcast(finite):
        raise UserError(
            f"{engine.stage}: the weights are not finite; the last checkpoint is intact; fix: a lower "
            f"{engine.stage}.learning_rate"
        )
    return weights if engine.world.is_rank0 else None


def export_model(
    model: PreTrainedModel,
    weights: dict[str, torch.Tensor],
    config: Config,
    folder: Path,
    label_mean: float,
    label_sd: float,
) -> None:
    """Write model and tokenizer into a directory that does not exist yet.

    The last layer of a regression model takes up the label scaling, so that its logits are expression values. Raises
    OSError where the disk is full.
    """
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not unexpected, unexpected
    # The language model's output layer shares its weights with the embeddings, so they have one name only.
    assert all(name.startswith("cls.predictions.decoder") for name in missing), missing
    regression = isinstance(model, BertForSequenceClassification)
    if regression:
        with torch.no_grad():
            model.classifier.weight.mul_(label_sd)
            model.classifier.bias.mul_(label_sd).add_(label_mean)
    try:
        model.save_pretrained(folder)
        overlapping = regression and config.finetune.tokens == "overlapping"
        stock_tokenizer(config, overlapping).save_pretrained(folder)
        _set_tokenizer_class(folder / "tokenizer_config.json")
    except OSError:
        raise
    except Exception as error:  # safetensors and tokenizers raise others, the latter plain Exception
        if "os error" not in str(error):
            raise
        raise OSError(str(error)) from None


def _set_tokenizer_class(path: Path) -> None:
    """Name the tokenizer's class as transformers 4 and 5 both know it: 5 writes a name that 4 cannot load."""
    settings = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**settings, "tokenizer_class": TOKENIZER_CLASS}, indent=2) + "\n", encoding="utf-8")


def stock_tokenizer(config: Config, overlapping: bool = False) -> PreTrainedTokenizerFast:
    """Build the tokenizer in transformers' class."""
    names = ("pad_token", "cls_token", "unk_token", "sep_token", "mask_token")
    return PreTrainedTokenizerFast(
        tokenizer_object=build_tokenizer(config.assay, config.shards.k, overlapping),
        **dict(zip(names, SPECIALS, strict=True)),
    )


def broadcast_weights(model: nn.Module) -> None:
    """Give every rank the weights of rank 0."""
    for tensor in model.state_dict().values():
        dist.broadcast(tensor, src=0)
