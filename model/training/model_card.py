"""The model's card: README.md of its Hugging Face directory, written from the run that made it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from pipeline.io.atomic import write_text
from pipeline.shards.index import Index

NAME = "README.md"
SPLITS = {"test": "test split", "valid": "validation split"}
METRICS = {"pearson": ("pearsonr", "Pearson"), "spearman": ("spearmanr", "Spearman"), "mse": ("mse", "MSE")}
"""Our name of a score, the Hub's, and what it is called."""
STARTS = {
    "pretrained": "fine-tuned to predict expression",
    "frozen": "fine-tuned to predict expression with its encoder frozen",
}
FRAMES = """\
extended = tokenizer.backend_tokenizer.normalizer.normalize_str(promoter)  # adapters off, flanks on
frames = tokenizer([extended[f:] for f in range(model.config.promoter_bert["k"])], padding=True, return_tensors="pt")
print(model(**frames).logits.mean().item())"""
OVERLAPPING = """\
assay, k = model.config.promoter_bert["assay"], model.config.promoter_bert["k"]
insert = promoter[len(assay["left_adapter"]) : len(promoter) - len(assay["right_adapter"])]
upstream, flank = assay["upstream"], assay["flank"]
extended = upstream[len(upstream) - flank :] + insert + assay["downstream"][:flank]
kmers = " ".join(extended[i : i + k] for i in range(len(extended) - k + 1))
print(model(**tokenizer(kmers, return_tensors="pt")).logits.item())"""


def write_card(model: Path, summary: Mapping[str, Any], index: Index) -> None:
    """Write the card into a model's folder.

    summary: what summary.json will hold; run.json lies in its directory.
    """
    facts = json.loads((Path(summary["directory"]) / "run.json").read_text(encoding="utf-8"))
    write_text(model / NAME, model_card(summary, facts, index))


def model_card(summary: Mapping[str, Any], facts: Mapping[str, Any], index: Index) -> str:
    """The card's text: YAML for the Hub, then Markdown."""
    front = yaml.safe_dump(_front_matter(summary), sort_keys=False, allow_unicode=True)
    parts = [
        f"# promoter-bert: {summary['run']}",
        _what(summary, facts, index),
        "## How to load it",
        _load(summary),
        "## Data",
        _data(summary, index),
        "## Training",
        _training(summary, facts),
        "## Scores",
        _scores(summary),
        "## Intended use",
        "Ranking and comparing promoters of the construct and condition that it was trained on, and choosing which to "
        "measure next.",
        "## Limits",
        _limits(summary),
    ]
    return f"---\n{front}---\n\n" + "\n\n".join(parts) + "\n"


def _front_matter(summary: Mapping[str, Any]) -> dict[str, Any]:
    results = [
        {
            "task": {"type": "text-classification", "name": "Expression of a promoter (regression)"},
            "dataset": {"name": f"promoters, {SPLITS[split]}", "type": "promoters", "split": split},
            "metrics": [
                {"type": kind, "value": round(score[name], 6), "name": title}
                for name, (kind, title) in METRICS.items()
                if name in score
            ],
        }
        for split, score in _best_split(summary)
    ]
    front: dict[str, Any] = {
        "library_name": "transformers",
        "pipeline_tag": "text-classification",
        "tags": ["biology", "genomics", "dna", "promoter", "gene-expression", "regression", "bert", "k-mers"],
        "metrics": ["pearsonr", "spearmanr"],
    }
    if results:
        front["model-index"] = [{"name": f"promoter-bert-{summary['run']}", "results": results}]
    return front


def _best_split(summary: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """The test split where there is one, else the validation split."""
    scores = summary["scores"]
    return [(split, scores[split]) for split in SPLITS if split in scores][:1]


def _what(summary: Mapping[str, Any], facts: Mapping[str, Any], index: Index) -> str:
    config = summary["config"]
    size, trained = config["model"], _trained(config["finetune"], facts)
    reads = (
        f"the {index.k} reading frames of its {index.k}-mers; the prediction is the mean over them"
        if config["finetune"]["tokens"] == "frames"
        else f"the overlapping {index.k}-mers at all of its bases"
    )
    return (
        f"A BERT of {_count(size['layers'], 'layer')}, hidden size {size['hidden']}, that reads the DNA of a promoter "
        f"and predicts how strongly it drives expression, on the scale of the labels. {trained} It reads {reads}."
    )


def _trained(finetune: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    if finetune["start"] == "scratch":
        return "It was trained from random weights."
    if finetune["pretrained"] == "own":
        return f"It was pretrained as a masked language model on strong promoters, then {STARTS[finetune['start']]}."
    sha256 = facts.get("pretrained_sha256")
    known = f" (sha256 `{sha256}`)" if sha256 else ""
    return (
        f"It starts from a masked language model that another run has pretrained, `{finetune['pretrained']}`{known}, "
        f"and was {STARTS[finetune['start']]}."
    )


def _load(summary: Mapping[str, Any]) -> str:
    assay, place = summary["config"]["assay"], summary["model"]
    promoter = assay["left_adapter"] + "ACGTTGCATGACTCAAATTTGGCC" + assay["right_adapter"]
    forward = FRAMES if summary["config"]["finetune"]["tokens"] == "frames" else OVERLAPPING
    code = f'''\
from transformers import AutoModelForSequenceClassification, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{place}")
model = AutoModelForSequenceClassification.from_pretrained("{place}").eval()
promoter = "{promoter}"
{forward}'''
    given = (
        f"A promoter is given with its adapters (`{assay['left_adapter']}`...`{assay['right_adapter']}`), "
        if assay["left_adapter"] or assay["right_adapter"]
        else "A promoter is given "
    )
    return (
        f"Stock transformers, no code of ours. {given}in letters ACGTN, inserts of {assay['min_insert']} to "
        f"{assay['max_insert']} bases.\n\n```python\n{code}\n```\n\nWith promoter-bert installed, "
        f"`promoter-bert predict {place} FILE -o predictions.tsv` does the same for a file."
    )


def _data(summary: Mapping[str, Any], index: Index) -> str:
    config = summary["config"]
    dataset, assay = config["dataset"], config["assay"]
    pretrained = config["finetune"]["start"] != "scratch" and config["finetune"]["pretrained"] == "own"
    sizes = [(split, index.rows(split)) for split in index.splits if pretrained or not split.startswith("pretrain/")]
    top = f"Pretraining takes the top {dataset['top_fraction']:.0%} by expression, ties included. " * pretrained
    return "\n".join(
        [
            "| split | promoters |",
            "|---|--:|",
            *(f"| {split} | {rows:,} |" for split, rows in sizes),
            "",
            f"Labels of the training split: mean {index.label_mean:.4g}, standard deviation {index.label_sd:.4g}, in "
            f"the range {assay['min_expression']:g} to {assay['max_expression']:g}. {top}Each insert is set between "
            f"{assay['flank']} bases of plasmid on either side. Splits: {dataset['split']}, seed {dataset['seed']}. "
            f"Dataset key `{index.dataset_key}`, shard key `{index.key}`.",
        ]
    )


def _training(summary: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    config = summary["config"]
    lines = [
        "| stage | steps | best at step | seconds | promoters a step | learning rate |",
        "|---|--:|--:|--:|--:|--:|",
        *(
            f"| {stage} | {done['steps']:,} | {done['best_step']:,} | {done['seconds']:,.0f} | "
            f"{config[stage]['global_batch']} | {config[stage]['learning_rate']:g} |"
            for stage, done in summary["training"].items()
        ),
    ]
    versions = ", ".join(f"{name} {facts['packages'][name]}" for name in ("torch", "deepspeed", "transformers"))
    gpus = ", ".join(facts["gpus"]) or "no GPU"
    return "\n".join(
        [*lines, "", f"Finished on {summary['finished']} UTC; {gpus}; Python {facts['python']}, {versions}; seed "
         f"{config['run']['seed']}; code {facts['git_commit'] or 'not from a git checkout'}."]
    )  # fmt: skip


def _scores(summary: Mapping[str, Any]) -> str:
    rows = []
    for split, score in summary["scores"].items():
        for name, (_, title) in METRICS.items():
            if name in score:
                ends = score.get("intervals", {}).get(name)
                interval = f"{ends[0]:.4f} to {ends[1]:.4f}" if ends else ""
                rows.append(f"| {SPLITS[split]} | {score['rows']:,} | {title} | {score[name]:.4f} | {interval} |")
    if not rows:
        return "The dataset has no held-out split, so that nothing is known of how well it predicts."
    note = (
        "The best weights were chosen by Pearson on the validation split. A predictor of the mean has a Pearson of 0."
    )
    return "\n".join(
        ["| split | promoters | score | value | 95 % interval |", "|---|--:|---|--:|---|", *rows, "", note]
    )


def _limits(summary: Mapping[str, Any]) -> str:
    dataset = summary["config"]["dataset"]
    leak = (
        "Splits are random: near-duplicates of a held-out promoter may have been trained on, which makes the scores "
        "better than those of promoters unlike any that were seen."
        if dataset["split"] == "random"
        else f"Inserts within {dataset['max_mismatches']} mismatches or one indel of each other lie in one split."
    )
    return "\n".join(
        [
            "- It knows one construct, host and growth condition; of other species, reporters or media it says nothing "
            "that was tested.",
            "- Labels are noisy. The highest correlation that noise allows is not known from this card, and part of "
            "what keeps the scores below 1 is the labels' own error.",
            f"- {leak}",
            "- Predictions are one number without an error of their own, and span less than the labels do.",
            "- What drives a prediction is correlation in the training data; a change of bases is to be measured.",
            "- The weights come without a licence here: that of the training data decides. The code is MIT.",
        ]
    )


def _count(n: int, one: str) -> str:
    return f"{n} {one}" if n == 1 else f"{n} {one}s"
