"""Section of a run's page with its commands, settings, keys and machine."""

import json
from collections.abc import Mapping
from typing import Any

import yaml

from model.artifacts.run_suggestions import format_command
from model.runs.read import RunFiles
from pipeline.reporting.html import Fold, Listing, Section, Table
from pipeline.reporting.text import SHORT_KEY, split_text
from pipeline.runtime.text import format_count, plain_number


def settings_section(run: RunFiles) -> Section:
    """Show command, model size, keys and machine; folded: all settings and versions."""
    facts, config = run.facts, run.config
    gpus = facts["gpus"]
    rows = [
        ("command", format_command(facts["command"])),
        *(("resumed", _describe_resume(resume)) for resume in facts.get("history", [])),
        *_model_rows(run),
        ("dataset file", config["dataset"]["path"]),
        ("split method", split_text(config["dataset"]["split"], config["dataset"]["seed"])),
        *([("training seed", str(config["run"]["seed"]))] if "seed" in config["run"] else []),
        ("machine", facts["machine"]),
        ("GPUs", ", ".join(gpus) if gpus else "none"),
        ("git commit", facts["git_commit"] or "not a git checkout"),
        ("dataset key", facts["dataset_key"][:SHORT_KEY]),
        ("shard key", facts["shard_key"][:SHORT_KEY] or "none: read from the dataset"),
    ]  # fmt: skip
    versions = {"python": facts["python"], **facts["packages"]}
    folds = [
        Fold("All settings", Listing(yaml.safe_dump(dict(config), sort_keys=False, width=100).rstrip())),
        *([] if run.baseline else [Fold("DeepSpeed settings", Listing(json.dumps(facts["ds_config"], indent=1)))]),
        Fold("Versions", Table((), [(name, version or "not installed") for name, version in versions.items()])),
    ]
    return Section("Settings and machine", "", [Table((), rows), *folds])


def _model_rows(run: RunFiles) -> list[tuple[str, str]]:
    """Describe the model and its initial weights, or the method of a baseline and what its validation split chose."""
    config = run.config
    if run.baseline is not None:
        choices = [f"{name.replace('_', ' ')} {value}" for name, value in run.baseline.items() if name != "method"]
        return [("method", f"{run.method}: {', '.join(choices)}")]
    size = config["model"]
    return [
        ("model", f"{_architecture(size)}: {format_count(size['layers'], 'layer')}, hidden size {size['hidden']}, "
                  f"{format_count(size['heads'], 'head')}, intermediate size {size['intermediate']}, "
                  f"dropout {size['dropout']:g}; {config['shards']['k']}-mers, "
                  f"{config['finetune']['tokens']}, flank {format_count(config['assay']['flank'], 'base')}"),
        ("initial weights", _initial_weights(config["finetune"], run.facts)),
    ]  # fmt: skip


def _architecture(model: Mapping[str, Any]) -> str:
    """Name the architecture, and composed k-mers. model: section of a configuration, without them if it is older."""
    name = "ModernBERT" if model.get("architecture") == "modernbert" else "BERT"
    return f"{name} with composed k-mers" if model.get("kmer_embedding") == "composed" else name


def _describe_resume(resume: Mapping[str, Any]) -> str:
    """Describe a resume with changed settings: an entry of `history` in run.json."""
    changes = ", ".join(
        f"{name}: {plain_number(before)} -> {plain_number(now)}" for name, (before, now) in resume["changes"].items()
    )
    return f"{format_command(resume['command'])} (on {resume['time']}; {changes})"


def _initial_weights(finetune: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    """Describe the weights that fine-tuning started from."""
    if finetune["start"] == "scratch":
        return "fine-tuned from random weights, without pretraining"
    frozen = ", encoder frozen" if finetune["start"] == "frozen" else ""
    if finetune.get("pretrained", "own") == "own":
        return f"fine-tuned from the pretrained weights{frozen}"
    sha256 = facts.get("pretrained_sha256")
    digest = f" (sha256 {sha256[:16]})" if sha256 else ""
    return f"fine-tuned from the pretrained weights of another run, {finetune['pretrained']}{digest}{frozen}"
