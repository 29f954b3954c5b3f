"""Sections of a run's page: scores, settings, data and training."""

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import yaml

from model.reporting.predictions import HeldOutResults
from model.reporting.run_plots import Bar, bars, curve_figure, read_curve
from model.runs.read import BASELINES, RunFiles, warn_below_baseline
from pipeline.dataset.database import DatasetInfo
from pipeline.dataset.query import Columns
from pipeline.reporting import dataset_plots as plots
from pipeline.reporting.html import Content, Figures, Fold, Listing, Section, Table
from pipeline.reporting.palette import BLUE, GREEN, GREY, ORANGE
from pipeline.reporting.svg import MIDDLE_WIDTH, render_svg
from pipeline.runtime.text import format_count, format_interval

TITLES = {"pretrain": "Pretraining", "finetune": "Fine-tuning"}
EXPLANATIONS = {
    "pretrain": "Masked language model: some k-mers of each promoter are hidden, and the model predicts them from the "
    "other k-mers. Labels are not used. The loss is the cross-entropy per masked k-mer in nats; lower is better. The "
    "accuracy is the share of masked k-mers that is predicted correctly. An epoch is one pass over the training split.",
    "finetune": "Regression: the loss is the {loss} of the standardized labels (mean 0, standard deviation 1), so it "
    "has no unit; lower is better. The best weights are those with the highest validation Pearson. An epoch is one "
    "pass over the training split.",
}
"""Stage -> what its curves show."""
CURVES_TEXT = "Curves: train is the training split, valid the validation split, which is not trained on."
LOSSES = {"mse": "mean squared error", "smooth_l1": "smooth L1 loss"}
"""Value of finetune.loss -> its name."""
EXPRESSION_UNIT = (
    "Expression has the arbitrary unit of the assay; in the yeast DREAM Challenge it is the average sorting bin, 0 to "
    "17."
)
BASELINES_TEXT = (
    "The table compares the best weights with two baselines that use no model. The first always predicts the most "
    "frequent k-mer of the training split. The second predicts the most likely k-mer between the visible bases on "
    "either side. Perplexity per base is 1 for perfect predictions and 4 for random guesses among four bases."
)
SCORES: dict[str, Callable[[dict[str, Any]], str]] = {
    "promoters": lambda score: f"{score['rows']:,}",
    "Pearson": lambda score: score_text(score, "pearson"),
    "Spearman": lambda score: score_text(score, "spearman"),
    "mean squared error (label units squared)": lambda score: f"{score['mse']:.4f}" if "mse" in score else "",
    "R²": lambda score: f"{score['r2']:.4f}" if "r2" in score else "",
}
"""Row of a table of scores -> its text, empty for a run that does not record it."""
SPLITS = {"valid": "validation", "test": "test"}
"""Split -> its name on a page."""
MEAN_PREDICTOR = "Mean predictor: always predicts the mean label; its correlation counts as 0."
MASKED = {
    "accuracy": "accuracy",
    "insert_accuracy": "accuracy in the insert",
    "base_perplexity": "perplexity per base",
    "insert_base_perplexity": "perplexity per base in the insert",
}
"""Metric of masked k-mers in summary.json -> its name."""
SPEED = {
    "learning rate": [("learning rate", "learning_rate", BLUE)],
    "promoters per second": [("throughput", "promoters_per_second", BLUE)],
}
PANELS = {
    "pretrain": {
        "loss (nats)": [("train", "loss", BLUE), ("valid", "valid_loss", ORANGE)],
        "accuracy": [
            ("train", "accuracy", BLUE), ("valid", "valid_accuracy", ORANGE),
            ("valid, insert", "valid_insert_accuracy", GREEN),
        ],
        **SPEED,
    },
    "finetune": {
        "loss": [("train", "loss", BLUE), ("valid", "valid_loss", ORANGE)],
        "validation correlation": [("Pearson", "valid_pearson", ORANGE), ("Spearman", "valid_spearman", GREEN)],
        **SPEED,
    },
}  # fmt: skip
"""Stage -> title of each figure -> label, metric and colour of its curves."""
UNITS = {
    "accuracy": "share of masked k-mers",
    "learning rate": "no unit",
    "loss": "no unit",
    "training loss": "no unit",
    "validation accuracy": "share of masked k-mers",
    "validation correlation": "no unit",
    "validation loss": "no unit",
    "validation Pearson": "no unit",
}
"""Title of a figure -> unit of its y axis, unless the title names it."""


def scores_section(run: RunFiles, held_out: HeldOutResults | None) -> Section:
    """Show the scores of each split with their 95 % intervals, beside the mean predictor and the noise ceiling."""
    heads = ("", *(SPLITS.get(split, split) for split in run.scores))
    rows = [(name, *map(show, run.scores.values())) for name, show in SCORES.items()]
    table = Table(heads, [row for row in rows if all(row)], frozenset(range(1, len(heads))))
    if held_out is None or held_out.split not in run.scores:
        return Section("Scores", _best_text(run), [table])
    score = run.scores[held_out.split]
    scores = [
        Bar("mean predictor", 0.0, colour=GREY),
        Bar("this run", score["pearson"], interval_of(score, "pearson")),
        *([] if held_out.ceiling is None else [Bar("noise ceiling", held_out.ceiling, colour=GREY)]),
    ]
    draw = bars(scores, f"Pearson correlation, {SPLITS[held_out.split]} split (no unit)")
    figure = render_svg("scores", "Scores", draw, 1.9, MIDDLE_WIDTH)
    return Section("Scores", f"{_best_text(run)} {_ceiling_text(held_out.ceiling)}", [table, Figures([figure])])


def _best_text(run: RunFiles) -> str:
    assert run.summary is not None
    best = run.summary["training"].get("finetune")
    if best is None:
        return ""
    intervals = any("intervals" in score for score in run.scores.values())
    return (
        f"Scores of the best weights: those of step {best['best_step']:,}, with the highest validation Pearson. "
        "Pearson and Spearman correlate predicted with measured expression: 1 is perfect, 0 is unrelated."
        f"{' In parentheses and as a dark line: 95 % intervals (bootstrap over promoters).' if intervals else ''}"
    )


def _ceiling_text(ceiling: float | None) -> str:
    if ceiling is None:
        return (
            f"{MEAN_PREDICTOR} The noise ceiling, the highest Pearson that the noise of the labels allows, is not "
            "known; replicate measurements can estimate it."
        )
    return (
        f"{MEAN_PREDICTOR} Noise ceiling of this split: the noise-free expression of its synthetic promoters has a "
        f"Pearson of {ceiling:.4f} with their noisy labels. No model can be expected to score higher."
    )


def interval_of(score: dict[str, Any], name: str) -> list[float] | None:
    """Return the 95 % interval of a score; None for a run that does not record it."""
    interval: list[float] | None = score.get("intervals", {}).get(name)
    return interval


def score_text(score: dict[str, Any], name: str) -> str:
    """Format a score with its 95 % interval."""
    return format_interval(score[name], interval_of(score, name))


def run_section(run: RunFiles) -> Section:
    """Show command, model size, keys and machine; folded: all settings and versions."""
    facts, config = run.facts, run.config
    size, gpus = config["model"], facts["gpus"]
    rows = [
        ("command", shlex.join(argument for argument in facts["command"] if not argument.startswith("--local_rank"))),
        ("model", f"BERT: {format_count(size['layers'], 'layer')}, hidden size {size['hidden']}, "
                  f"{format_count(size['heads'], 'head')}, intermediate size {size['intermediate']}, "
                  f"dropout {size['dropout']:g}; {config['shards']['k']}-mers, "
                  f"{config['finetune']['tokens']}, flank {format_count(config['assay']['flank'], 'base')}"),
        ("initial weights", _initial_weights(config["finetune"], facts)),
        ("dataset file", config["dataset"]["path"]),
        ("split method", f"{config['dataset']['split']}, seed {config['dataset']['seed']}"),
        ("training seed", str(config["run"]["seed"])),
        ("machine", facts["machine"]),
        ("GPUs", ", ".join(gpus) if gpus else "none"),
        ("git commit", facts["git_commit"] or "not a git checkout"),
        ("dataset key", facts["dataset_key"][:16]),
        ("shard key", facts["shard_key"][:16]),
    ]  # fmt: skip
    versions = {"python": facts["python"], **facts["packages"]}
    folds = [
        Fold("All settings", Listing(yaml.safe_dump(dict(config), sort_keys=False, width=100).rstrip())),
        Fold("DeepSpeed settings", Listing(json.dumps(facts["ds_config"], indent=1))),
        Fold("Versions", Table((), [(name, version or "not installed") for name, version in versions.items()])),
    ]
    return Section("Settings and machine", "", [Table((), rows), *folds])


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


def data_section(info: DatasetInfo, labels: Columns) -> Section:
    """Show the sizes of the splits, and a histogram of the labels with the pretraining threshold."""
    assert info.cut is not None
    sizes = {name: f"{rows:,}" for name, rows in info.split_rows.items()}
    rows = [
        (TITLES[stage], *(sizes.get(f"{stage}/{split}", "") for split in ("train", "valid", "test")))
        for stage in TITLES
    ]
    histogram = render_svg(
        "labels", "Labels and the threshold", plots.label_histogram(labels, info.cut), 2.8, MIDDLE_WIDTH
    )
    return Section(
        "Data",
        f"{format_count(info.promoters, 'promoter')}. The {info.pretrain_rows:,} with a measured expression of "
        f"{info.cut:g} or more ({info.pretrain_rows / info.promoters:.1%}) are used for pretraining. {EXPRESSION_UNIT} "
        "The table shows the number of promoters per split.",
        [Table(("stage", "train", *SPLITS.values()), rows, frozenset({1, 2, 3})), Figures([histogram])],
    )


def stage_section(run: RunFiles, stage: str) -> Section:
    """Show the curves of a stage; folded: its evaluations as numbers."""
    text = f"{_length_text(run, stage)} {explain_stage([run], stage)} {CURVES_TEXT}"
    figures: list[str] = []
    for place, (title, metrics) in enumerate(PANELS[stage].items()):
        lines = [read_curve(run, stage, metric, label, colour) for label, metric, colour in metrics]
        name, log = f"{stage}-{place}", title == "learning rate"
        figures += curve_figure(name, f"{TITLES[stage]}: {title}", lines, label_y_axis(title), logarithmic=log)
    contents: list[Content] = [Figures(figures)]
    masked = run.summary.get("masked") if run.summary is not None and stage == "pretrain" else None
    if masked:
        contents.append(_masked_table(masked))
        warning = warn_below_baseline(masked)
        text += f" {BASELINES_TEXT}" + (f" The pretraining is {warning}." if warning else "")
    evaluations = [line for line in run.metrics if line["stage"] == stage and "valid_loss" in line]
    if evaluations:
        contents.append(Fold("Evaluations", _evaluation_table(evaluations)))
    return Section(TITLES[stage], text, contents)


def label_y_axis(title: str) -> str:
    """Add the unit to the title of a figure, as the label of its y axis."""
    return f"{title}\n({UNITS[title]})" if title in UNITS else title


def explain_stage(runs: Sequence[RunFiles], stage: str) -> str:
    """Explain the curves of a stage, and warn if the runs were fine-tuned with different losses."""
    # A dictionary keeps the order; older runs have no such setting.
    losses = {run.config["finetune"].get("loss", "mse"): None for run in runs}
    text = EXPLANATIONS[stage].format(loss=" or the ".join(LOSSES[loss] for loss in losses))
    if stage == "pretrain" or len(losses) == 1:
        return text
    return f"{text} The curves of different losses (finetune.loss) cannot be compared."


def _masked_table(masked: dict[str, Any]) -> Table:
    """Compare the best pretrained weights with the baselines."""
    columns = {"best weights": masked}
    for name, baseline in masked["baselines"].items():
        kmer = f" ({baseline['kmer']})" if "kmer" in baseline else ""
        columns[f"{BASELINES[name]}{kmer}"] = baseline
    rows = [
        (title, *(f"{each[metric]:.4f}" if metric in each else "" for each in columns.values()))
        for metric, title in MASKED.items()
        if metric in masked
    ]
    return Table(("", *columns), rows, frozenset(range(1, len(columns) + 1)))


def _length_text(run: RunFiles, stage: str) -> str:
    last = [line for line in run.metrics if line["stage"] == stage][-1]
    text = f"{format_count(last['step'], 'step')}, {last['epoch']:.3g} epochs"
    result = run.summary["training"].get(stage) if run.summary is not None else None
    if result is None:
        return f"{text}."
    return f"{text}, {result['seconds']:,.0f} s; best at step {result['best_step']:,}."


def _evaluation_table(lines: Sequence[dict[str, Any]]) -> Table:
    names = [name for name in lines[0] if name.startswith("valid_")]
    heads = ["step", "epoch", *(name.removeprefix("valid_").replace("_", " ") for name in names)]
    rows = [[f"{line['step']:,}", f"{line['epoch']:.3f}", *(f"{line[name]:.4f}" for name in names)] for line in lines]
    return Table(heads, rows, frozenset(range(len(heads))))
