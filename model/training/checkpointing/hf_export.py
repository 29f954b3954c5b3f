"""Export the weights of a stage as a stock Hugging Face directory, in float32, at any ZeRO stage and precision."""

import json
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from model.artifacts.model_directory import REGRESSION_MODELS
from model.bert.kmer_embedding import split_composition, write_composition
from model.config import Config
from model.distributed.process_group import broadcast
from model.training.engine import StageEngine, make_divergence_error
from pipeline.shards.index import Index
from pipeline.tokens.hf_tokenizer import build_tokenizer
from pipeline.tokens.kmers import SPECIALS


def export_stage(engine: StageEngine, config: Config, index: Index, folder: Path) -> None:
    """Write the model of a stage into a new directory. All ranks call this.

    Raises OSError on every rank if the disk is full, UserError if a weight is not finite.
    """
    weights = gather_weights(engine)
    problem = None
    if engine.world.is_rank0:
        trained = engine.task.model
        try:
            stock, network = split_composition(trained, weights)
            export_model(type(trained)(trained.config), stock, config, index, folder)
            write_composition(folder, network)
        except OSError as error:
            problem = str(error)
    problem = broadcast(problem)
    if problem is not None:
        raise OSError(problem)


def gather_weights(engine: StageEngine) -> dict[str, torch.Tensor]:
    """Gather the weights of the engine's model by name, in float32, on rank 0. All ranks call this.

    Returns an empty dictionary on other ranks. Raises UserError on every rank if a trained weight is not finite.
    """
    from deepspeed.utils import safe_get_full_fp32_param

    masters = _find_unsharded_masters(engine.deepspeed.optimizer)
    weights = {}
    finite = True
    for name, parameter in engine.task.model.named_parameters():
        if not parameter.requires_grad:
            continue
        full = safe_get_full_fp32_param(parameter)
        full = masters.get(parameter, parameter) if full is None else full
        if engine.world.is_rank0:
            weights[name] = full.detach().float().cpu().clone()
            finite &= bool(weights[name].isfinite().all())
    if not broadcast(finite):
        raise make_divergence_error(engine.stage, "the weights are not finite")
    return engine.frozen | weights if engine.world.is_rank0 else {}


def _find_unsharded_masters(optimizer: Any) -> dict[torch.Tensor, torch.Tensor]:
    """Find the float32 weights that DeepSpeed's ZeRO stage 0 keeps for those of the model in half precision.

    The dictionary is empty in float32, which needs no second copy, and at other ZeRO stages.
    """
    if not hasattr(optimizer, "fp32_groups"):
        return {}
    groups = zip(optimizer.fp16_groups, optimizer.fp32_groups, strict=True)
    return {half: master for halves, masters in groups for half, master in zip(halves, masters, strict=True)}


def export_model(
    model: PreTrainedModel, weights: dict[str, torch.Tensor], config: Config, index: Index, folder: Path
) -> None:
    """Write model and tokenizer into a new directory.

    weights: float32 tensors by name.

    The label scaling becomes part of the last layer of a regression model, so that its logits are expression values.
    The logits of a model with bins stay: their expected value is on the scale of the labels.
    Raises OSError if the disk is full.
    """
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not unexpected, unexpected
    # The output layer of the language model shares its weights with the embeddings, so they have only one name.
    assert all("decoder." in name for name in missing), missing
    is_regression = type(model).__name__ in REGRESSION_MODELS
    if is_regression and model.config.problem_type == "regression":
        with torch.no_grad():
            mean, sd = torch.tensor(index.label_mean), torch.tensor(index.label_sd)
            model.classifier.weight.mul_(sd.view(-1, 1))  # one row per label
            model.classifier.bias.mul_(sd).add_(mean)
    try:
        model.save_pretrained(folder)
        overlapping = config.finetune.tokens == "overlapping" if is_regression else config.pretrain.objective == "spans"
        build_stock_tokenizer(config, overlapping).save_pretrained(folder)
        path = folder / "tokenizer_config.json"
        # transformers 5 writes a class name that 4 cannot load; both can load this one.
        settings = json.loads(path.read_text(encoding="utf-8")) | {"tokenizer_class": "PreTrainedTokenizerFast"}
        path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    except Exception as error:  # on a full disk safetensors raises its own error, and tokenizers a plain Exception
        if isinstance(error, OSError) or "os error" not in str(error):
            raise
        raise OSError(str(error)) from None


def build_stock_tokenizer(config: Config, overlapping: bool = False) -> PreTrainedTokenizerFast:
    """Build the tokenizer of a model as a class of transformers. overlapping: for overlapping tokens, else frames."""
    names = ("pad_token", "cls_token", "unk_token", "sep_token", "mask_token")
    return PreTrainedTokenizerFast(
        tokenizer_object=build_tokenizer(config.assay, config.shards.k, overlapping),
        **dict(zip(names, SPECIALS, strict=True)),
    )
