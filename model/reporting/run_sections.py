"""Sections of a run's page on its scores, what was run, its data and its training."""

import json
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import yaml

from model.reporting.curves import evaluations, series
from model.reporting.plots import Bar, Curve, bars, curves
from model.reporting.predictions import HeldOut
from model.runs.guessed import below_the_guess
from model.runs.read import RunFiles
from pipeline.dataset.database import DatasetInfo
from pipeline.dataset.query import Columns
from pipeline.reporting import dataset_plots as plots
from pipeline.reporting.html import Content, Fold, Listing, Section, Side, Table
from pipeline.reporting.svg import BLUE, GREEN, GREY, HALF_WIDTH, MIDDLE_WIDTH, ORANGE, svg

TITLES = {"pretrain": "Pretraining", "finetune": "Fine-tuning"}
SAYS = {
    "pretrain": "Masked language model: loss is the cross-entropy of the masked k-mers (nats), accuracy the share of "
    "them that is predicted right.",
    "finetune": "Regression: loss is the {loss} of the standardised labels; the best weights are those of the highest "
    "validation Pearson.",
}
LOSSES = {"mse": "mean squared error", "smooth_l1": "smooth L1 loss"}
"""What finetune.loss is called."""
GUESSES_SAY = (
    "In the table, beside the best weights, two guesses without a model: always the k-mer that is most frequent in the "
    "training split; and, given neighbours, the likeliest k-mer between the bases that can be read on either side."
)
SCORES: dict[str, Callable[[dict[str, Any]], str]] = {
    "promoters": lambda score: f"{score['rows']:,}",
    "Pearson": lambda score: score_text(score, "pearson"),
    "Spearman": lambda score: score_text(score, "spearman"),
    "mean squared error": lambda score: f"{score['mse']:.4f}" if "mse" in score else "",
    "R²": lambda score: f"{score['r2']:.4f}" if "r2" in score else "",
}
"""What a table says of a split's scores; empty where the run does not hold it."""
SPLITS = {"valid": "validation", "test": "test"}
MASKED = {
    "accuracy": "masked k-mers right",
    "insert_accuracy": "the same inside the insert",
    "base_perplexity": "perplexity a base",
    "insert_base_perplexity": "the same inside the insert",
}
PANEL = 2.5
"""Height of a small picture, inches."""


def scores_section(run: RunFiles, held_out: HeldOut | None) -> Section:
    """Scores of each split with their intervals, and beside what they are read."""
    heads = ("", *(SPLITS.get(split, split) for split in run.scores))
    rows = [
        (name, *(show(score) for score in run.scores.values()))
        for name, show in SCORES.items()
        if all(show(score) for score in run.scores.values())
    ]
    table = Table(heads, rows, frozenset(range(1, len(heads))))
    if held_out is None or held_out.split not in run.scores:
        return Section("Scores", _best_says(run), table)
    picture = svg(
        "scores", "Scores", 1.9, bars(_scores_bars(run, held_out), f"Pearson, {held_out.split} split"), MIDDLE_WIDTH
    )
    return Section("Scores", f"{_best_says(run)} {_ceiling_says(held_out)}", table, more=[picture])


def _best_says(run: RunFiles) -> str:
    assert run.summary is not None
    best = run.summary["training"].get("finetune")
    if best is None:
        return ""
    intervals = any("intervals" in score for score in run.scores.values())
    return (
        f"Of the weights of step {best['best_step']:,}, the best by validation Pearson."
        f"{' In parentheses: 95 % intervals, by bootstrap over promoters.' if intervals else ''}"
    )


def _ceiling_says(held_out: HeldOut) -> str:
    if held_out.ceiling is None:
        return (
            "The noise ceiling of these labels is not known: replicates would tell it, or a noise-free expression, "
            "which only generated rows have."
        )
    return (
        f"Noise ceiling: the noise-free expression of these generated promoters correlates with their labels by "
        f"{held_out.ceiling:.4f}; no model can be expected to do better."
    )


def _scores_bars(run: RunFiles, held_out: HeldOut) -> list[Bar]:
    score = run.scores[held_out.split]
    found = [
        Bar("mean predictor", 0.0, None, GREY),
        Bar("this run", score["pearson"], interval_of(score, "pearson"), BLUE),
    ]
    return found if held_out.ceiling is None else [*found, Bar("noise ceiling", held_out.ceiling, None, GREY)]


def interval_of(score: dict[str, Any], name: str) -> tuple[float, float] | None:
    """The ends of a score's 95 % interval, where the run holds one."""
    ends = score.get("intervals", {}).get(name)
    return None if ends is None else (float(ends[0]), float(ends[1]))


def score_text(score: dict[str, Any], name: str) -> str:
    """A score and its interval for a table."""
    ends = interval_of(score, name)
    return f"{score[name]:.4f}" + ("" if ends is None else f" ({ends[0]:.4f} to {ends[1]:.4f})")


def run_section(run: RunFiles) -> Section:
    """Command, sizes, keys, machine, and folded: settings and versions."""
    facts, config = run.facts, run.config
    size, gpus = config["model"], facts["gpus"]
    rows = [
        ("command", shlex.join(word for word in facts["command"] if not word.startswith("--local_rank"))),
        ("model", f"BERT: {size['layers']} layers, hidden {size['hidden']}, {size['heads']} heads, intermediate "
                  f"{size['intermediate']}, dropout {size['dropout']:g}; {config['shards']['k']}-mers, "
                  f"{config['finetune']['tokens']}, flank {config['assay']['flank']}"),
        ("start", _start(config["finetune"], facts)),
        ("dataset", config["dataset"]["path"]),
        ("splits", f"{config['dataset']['split']}, seed {config['dataset']['seed']}"),
        ("seed of the run", str(config["run"]["seed"])),
        ("machine", facts["machine"]),
        ("GPUs", ", ".join(gpus) if gpus else "none"),
        ("code", facts["git_commit"] or "not a git checkout"),
        ("dataset key", facts["dataset_key"][:16]),
        ("shard key", facts["shard_key"][:16]),
    ]  # fmt: skip
    versions = {"python": facts["python"], **facts["packages"]}
    folds = [
        Fold("All settings", Listing(yaml.safe_dump(dict(config), sort_keys=False, width=100).rstrip())),
        Fold("DeepSpeed's settings", Listing(json.dumps(facts["ds_config"], indent=1))),
        Fold("Versions", Table((), [(name, version or "not installed") for name, version in versions.items()])),
    ]
    return Section("What was run", "", Table((), rows), more=folds)


def _start(finetune: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    """Where the weights that were fine-tuned came from."""
    if finetune["start"] == "scratch":
        return "fine-tuned from random weights, without pretraining"
    frozen = ", encoder frozen" if finetune["start"] == "frozen" else ""
    if finetune.get("pretrained", "own") == "own":
        return f"fine-tuned from the pretrained weights{frozen}"
    sha256 = facts.get("pretrained_sha256")
    known = f" (sha256 {sha256[:16]})" if sha256 else ""
    return f"fine-tuned from the weights that another run pretrained, {finetune['pretrained']}{known}{frozen}"


def data_section(info: DatasetInfo, labels: Columns) -> Section:
    """Sizes of the splits, and the labels with the cut."""
    rows = [
        ("pretraining", f"{info.pretrain_rows - info.pretrain_valid_rows:,}", f"{info.pretrain_valid_rows:,}", ""),
        (
            "fine-tuning",
            f"{info.finetune_train_rows:,}",
            f"{info.finetune_valid_rows:,}",
            f"{info.finetune_test_rows:,}",
        ),
    ]
    assert info.cut is not None
    histogram = svg("labels", "Labels and the cut", 2.8, plots.label_histogram(labels, info.cut), MIDDLE_WIDTH)
    return Section(
        "Data",
        f"{info.promoters:,} promoters. The {info.pretrain_rows:,} with an expression of {info.cut:g} or above "
        f"({info.pretrain_rows / info.promoters:.1%}) are pretrained on.",
        Table(("stage", "train", "valid", "test"), rows, frozenset({1, 2, 3})),
        more=[histogram],
    )


def stage_section(run: RunFiles, stage: str) -> Section:
    """A stage's curves, and folded, its evaluations as numbers."""
    pictures = [
        svg(f"{stage}-{name}", f"{TITLES[stage]}: {title}", PANEL, curves(lines, title, name == "rate"), HALF_WIDTH)
        for name, title, lines in _panels(run, stage)
        if lines
    ]
    says, more = f"{_length_says(run, stage)} {stage_says([run], stage)}", list[Content]()
    if stage == "pretrain" and run.summary is not None and run.summary.get("masked"):
        more.append(_masked(run.summary["masked"]))
        says = f"{says} {GUESSES_SAY}"
        verdict = below_the_guess(run.summary["masked"])
        says += f" The pretraining is {verdict}." if verdict else ""
    if evaluations(run, stage):
        more.append(Fold("Evaluations", _evaluations(run, stage)))
    return Section(TITLES[stage], says, Side(pictures), more=more)


def stage_says(runs: Sequence[RunFiles], stage: str) -> str:
    """What the curves of a stage are; and where the runs' fine-tuning had several losses, that these are no measure."""
    losses = {run.config["finetune"].get("loss", "mse"): None for run in runs}  # in order; older runs had one only
    text = SAYS[stage].format(loss=" or the ".join(LOSSES[loss] for loss in losses))
    if stage == "pretrain" or len(losses) == 1:
        return text
    return f"{text} Lines of different losses (finetune.loss) cannot be compared."


def _masked(masked: dict[str, Any]) -> Table:
    """What the best pretrained weights make of the masked k-mers, beside guesses without a model."""
    found = {"best weights": masked}
    for name, guess in masked["baselines"].items():
        kmer = f" ({guess['kmer']})" if "kmer" in guess else ""
        found[f"{name.replace('_', ' ').replace('kmer', 'k-mer')}{kmer}"] = guess
    rows = [
        (title, *(f"{each[metric]:.4f}" if metric in each else "" for each in found.values()))
        for metric, title in MASKED.items()
        if metric in masked
    ]
    return Table(("", *found), rows, frozenset(range(1, len(found) + 1)))


def _panels(run: RunFiles, stage: str) -> Iterator[tuple[str, str, list[Curve]]]:
    """Name, title and lines of each small picture of a stage."""
    loss = [("train", "loss", BLUE), ("valid", "valid_loss", ORANGE)]
    yield "loss", "loss", _lines(run, stage, loss)
    if stage == "pretrain":
        accuracy = [
            ("train", "accuracy", BLUE),
            ("valid", "valid_accuracy", ORANGE),
            ("valid, insert", "valid_insert_accuracy", GREEN),
        ]
        yield "accuracy", "masked k-mers right", _lines(run, stage, accuracy)
    else:
        correlation = [("Pearson", "valid_pearson", ORANGE), ("Spearman", "valid_spearman", GREEN)]
        yield "correlation", "validation correlation", _lines(run, stage, correlation)
    yield "rate", "learning rate", _lines(run, stage, [("learning rate", "learning_rate", BLUE)])
    yield "speed", "promoters a second", _lines(run, stage, [("throughput", "promoters_per_second", BLUE)])


def _lines(run: RunFiles, stage: str, metrics: Sequence[tuple[str, str, str]]) -> list[Curve]:
    found = ((label, series(run, stage, metric), metric, colour) for label, metric, colour in metrics)
    return [
        Curve(label, line.epochs, line.values, colour, dots=metric.startswith("valid_"))
        for label, line, metric, colour in found
        if line.epochs
    ]


def _length_says(run: RunFiles, stage: str) -> str:
    last = [line for line in run.metrics if line["stage"] == stage][-1]
    text = f"{last['step']:,} steps, {last['epoch']:.3g} epochs"
    done = run.summary["training"].get(stage) if run.summary is not None else None
    if done is None:
        return f"{text}."
    return f"{text}, {done['seconds']:,.0f} s; best at step {done['best_step']:,}."


def _evaluations(run: RunFiles, stage: str) -> Table:
    lines = evaluations(run, stage)
    names = [name for name in lines[0] if name.startswith("valid_")]
    heads = ["step", "epoch", *(name.removeprefix("valid_").replace("_", " ") for name in names)]
    rows = [[f"{line['step']:,}", f"{line['epoch']:.3f}", *(f"{line[name]:.4f}" for name in names)] for line in lines]
    return Table(heads, rows, frozenset(range(len(heads))))
