"""Sections of a run's page: scores and training."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from model.reporting.predictions import HeldOutResults
from model.reporting.run_plots import Bar, bars, curve_figure, read_curve, without_repeats
from model.runs.read import (
    BASELINES,
    SPLITS,
    RunFiles,
    hides_spans,
    list_scale_warnings,
    warn_below_baseline,
)
from pipeline.reporting.html import Content, Figures, Fold, Section, Table
from pipeline.reporting.palette import BLUE, GREEN, GREY, ORANGE
from pipeline.reporting.svg import MIDDLE_WIDTH, render_svg
from pipeline.runtime.text import format_count, format_interval, name_sequences

TITLES = {"pretrain": "Pretraining", "finetune": "Fine-tuning"}
EXPLANATIONS = {
    "pretrain": (
        "The model learns from sequences only, without expression. Some k-mers (short words of bases) of each "
        "promoter are hidden (masked), and the model predicts them from the other k-mers.",
        "Loss: how improbable the masked k-mers were for the model (cross-entropy per k-mer, in nats); lower is "
        "better. A nat is the unit of information to base e. Accuracy: the share of masked k-mers that "
        "are predicted correctly. An epoch is one pass over all training promoters.",
    ),
    "spans": (
        "The model learns from sequences only, without expression. Short spans of bases of each promoter are hidden, "
        "with all k-mers (short words of bases) that contain them. The model predicts the hidden bases from the other "
        "k-mers.",
        "Loss: how improbable the hidden bases were for the model (cross-entropy per base, in nats); lower is better, "
        "and random guesses have 1.386. A nat is the unit of information to base e. Accuracy: the share of hidden "
        "bases that are predicted correctly. An epoch is one pass over all training promoters.",
    ),
    "finetune": (
        "The model learns to predict expression from the sequence.",
        "Loss: the {loss}; lower is better. An epoch is one pass over all training promoters.",
    ),
}
"""Stage, `spans` for pretraining on hidden spans -> what it does, how to read its curves."""
CURVES_TEXT = (
    "Curve train: promoters that the model learns from. Curve valid: validation promoters, which are held out."
)
LOSSES = {"mse": "mean squared error", "smooth_l1": "smooth L1 loss", "bins": "cross-entropy over bins"}
"""Value of finetune.loss -> its name."""
STANDARDIZED = " of the standardized labels (mean 0, standard deviation 1), so it has no unit"
NATS = " of the label, in nats"
PERPLEXITY_TEXT = (
    "Perplexity per base is the number of bases that the model still considers: 1 for perfect predictions, 4 for "
    "random guesses."
)
SPAN_BASELINE_TEXT = (
    "The table compares the best saved model with a baseline that uses no model: it always guesses the most frequent "
    f"base of the training split. {PERPLEXITY_TEXT} The baseline has no perplexity (-)."
)
BASELINES_TEXT = (
    "The table compares the best saved model with two baselines that use no model. The first always guesses the most "
    "frequent k-mer of the training split. The second guesses the most likely k-mer from the bases next to it. The "
    "second can be worse than the first in small datasets, which hold few examples of each context. "
    f"{PERPLEXITY_TEXT} The baselines have no perplexity (-), because they name one k-mer without probabilities."
)
SCORES: dict[str, Callable[[dict[str, Any]], str]] = {
    "promoters": lambda score: f"{score['rows']:,}",
    "Pearson": lambda score: score_text(score, "pearson"),
    "Spearman": lambda score: score_text(score, "spearman"),
    "mean squared error (squared units)": lambda score: f"{score['mse']:.4f}" if "mse" in score else "",
    "R²": lambda score: f"{score['r2']:.4f}" if "r2" in score else "",
    "typical error (RMSE, in the unit of the labels)": lambda score: (
        f"{math.sqrt(score['mse']):.4f}" if "mse" in score else ""
    ),
}
"""Row of a table of scores -> its text, empty for a run that does not record it."""
INTERVALS = (
    " In parentheses and as a line on the bar: 95 % confidence intervals, from resampling promoters (bootstrap)."
)
MEANS_TEXT = "The first table has the means over the labels. The others have one row per label."
MEAN_PREDICTOR = "Mean predictor: always predicts the mean expression. It has no correlation, which is shown as 0."
MASKED = {
    "accuracy": "accuracy",
    "insert_accuracy": "accuracy in the insert",
    "base_perplexity": "perplexity per base",
    "insert_base_perplexity": "perplexity per base in the insert",
}
"""Metric of masked k-mers in summary.json -> its name."""
METRICS = MASKED | {
    "insert_loss": "loss in the insert",
    "pearson": "Pearson",
    "spearman": "Spearman",
    "mse": "mean squared error",
    "r2": "R²",
}
"""Metric of the validation split in metrics.jsonl -> its name; other metrics keep their names."""
SPEED = {
    "learning rate": [("learning rate", "learning_rate", BLUE)],
    "promoters per second": [("throughput", "promoters_per_second", BLUE)],
}
"""Title of each folded figure -> label, metric and colour of its curves."""
PANELS = {
    "pretrain": {
        "loss (nats)": [("train", "loss", BLUE), ("valid", "valid_loss", ORANGE)],
        "accuracy": [
            ("train", "accuracy", BLUE), ("valid", "valid_accuracy", ORANGE),
            ("valid, in the insert", "valid_insert_accuracy", GREEN),
        ],
    },
    "finetune": {
        "loss": [("train", "loss", BLUE), ("valid", "valid_loss", ORANGE)],
        "validation correlation": [("Pearson", "valid_pearson", ORANGE), ("Spearman", "valid_spearman", GREEN)],
    },
}  # fmt: skip
"""Stage -> title of each figure -> label, metric and colour of its curves."""
UNITS = {
    "accuracy": "share of predictions",
    "learning rate": "no unit",
    "loss": "no unit",
    "training perplexity per base": "no unit",
    "validation perplexity per base": "no unit",
    "training loss": "no unit",
    "validation accuracy": "share of predictions",
    "validation correlation": "no unit",
    "validation loss": "no unit",
    "validation Pearson": "no unit",
}
"""Title of a figure -> unit of its y axis, unless the title names it."""


def scores_section(run: RunFiles, held_out: HeldOutResults | None, leaks: str = "") -> Section:
    """Show the scores of each split with their 95 % intervals, beside the mean predictor and the noise ceiling.

    leaks: sentence about held-out rows that resemble training rows; empty if there is nothing to say.
    """
    heads = ("", *(SPLITS.get(split, split) for split in run.scores))
    word, best = run.sequence_name, "\n\n".join(filter(None, [_best_text(run), leaks]))
    rows = [(name_sequences(name, word), *map(show, run.scores.values())) for name, show in SCORES.items()]
    table = Table(heads, [row for row in rows if all(row)], frozenset(range(1, len(heads))))
    if run.labels:
        return Section("Scores", f"{best} {MEANS_TEXT}", [table, *_label_tables(run)])
    if held_out is None or held_out.split not in run.scores:
        return Section("Scores", best, [table])
    score = run.scores[held_out.split]
    scores = [
        Bar("mean predictor", 0.0, colour=GREY),
        Bar("this run", score["pearson"], interval_of(score, "pearson")),
        *([] if held_out.ceiling is None else [Bar("noise ceiling", held_out.ceiling, colour=GREY)]),
    ]
    draw = bars(scores, f"Pearson correlation, {SPLITS[held_out.split]} split (no unit)")
    figure = render_svg("scores", "Scores", draw, 1.9, MIDDLE_WIDTH)
    return Section(
        "Scores",
        f"{best}\n\n{name_sequences(_ceiling_text(held_out.ceiling), word)}",
        [table, Figures([figure])],
    )


def _label_tables(run: RunFiles) -> list[Content]:
    """Make a table per split with a row per label, and a figure of the labels of the last split."""
    contents: list[Content] = []
    for split, score in run.scores.items():
        scored = [name for name in run.labels if f"pearson/{name}" in score]
        rows = [
            (name, *(score_text(score, f"{metric}/{name}") for metric in ("pearson", "spearman")),
             f"{score[f'mse/{name}']:.4f}", f"{score[f'r2/{name}']:.4f}", f"{math.sqrt(score[f'mse/{name}']):.4f}")
            for name in scored
        ]  # fmt: skip
        heads = (f"label ({SPLITS.get(split, split)} split)", *list(SCORES)[1:])
        contents.append(Table(heads, rows, frozenset(range(1, len(heads)))))
    names = [f"pearson/{name}" for name in scored]
    drawn = [Bar(label, score[name], interval_of(score, name)) for label, name in zip(scored, names, strict=True)]
    if not drawn:  # no label has a value in this split
        return contents
    draw = bars(drawn, f"Pearson correlation, {SPLITS.get(split, split)} split (no unit)")
    height = 0.9 + 0.32 * len(drawn)
    return [*contents, Figures([render_svg("scores", "Scores of the labels", draw, height, MIDDLE_WIDTH)])]


def _best_text(run: RunFiles) -> str:
    assert run.summary is not None
    best = run.summary["training"].get("finetune")
    if best is None and run.baseline is not None:
        return f"Scores of a baseline: {run.method}, regularized as the validation split chose."
    if best is None:
        return ""
    intervals = (
        f" {name_sequences(INTERVALS, run.sequence_name)}"
        if any("intervals" in score for score in run.scores.values())
        else ""
    )
    return (
        f"Scores of the best saved model (after training step {best['best_step']:,}), which has the highest validation "
        f"Pearson{' (mean over the labels)' if run.labels else ''}. Pearson and Spearman are correlations of predicted "
        "with measured expression: 1 is perfect, 0 is no relation. R² is the share of the variance of "
        f"expression that the predictions explain.{intervals}"
        + "".join(f"\n\nWarning, {warning}." for warning in list_scale_warnings(run.scores))
    )


def _ceiling_text(ceiling: float | None) -> str:
    if ceiling is None:
        return (
            f"{MEAN_PREDICTOR} Noise ceiling: the highest Pearson that the noise of the measurements allows. It is not "
            "known here; replicate measurements can estimate it."
        )
    return (
        f"{MEAN_PREDICTOR} Noise ceiling of this split: its promoters are computer-generated, so their expression "
        f"without noise is known. This noise-free expression has a Pearson of {ceiling:.4f} with their noisy labels. "
        "No model can be expected to score higher."
    )


def interval_of(score: dict[str, Any], name: str) -> list[float] | None:
    """Return the 95 % interval of a score; None for a run that does not record it."""
    interval: list[float] | None = score.get("intervals", {}).get(name)
    return interval


def score_text(score: dict[str, Any], name: str) -> str:
    """Format a score with its 95 % interval."""
    return format_interval(score[name], interval_of(score, name))


def stage_section(run: RunFiles, stage: str) -> Section:
    """Show the curves of a stage; folded: its speed, and its evaluations as numbers."""
    does, reading = explain_stage([run], stage)
    paragraphs = [f"{does} {_length_text(run, stage)}", f"{reading} {name_sequences(CURVES_TEXT, run.sequence_name)}"]
    contents: list[Content] = [Figures(_stage_figures(run, stage, PANELS[stage]))]
    masked = run.summary.get("masked") if run.summary is not None and stage == "pretrain" else None
    if masked:
        contents.append(_masked_table(masked))
        warning = warn_below_baseline(masked)
        text = SPAN_BASELINE_TEXT if hides_spans(run) else BASELINES_TEXT
        paragraphs.append(f"{text}{f' Warning: {warning}.' if warning else ''}")
    contents.append(Fold("Learning rate and speed", Figures(_stage_figures(run, stage, SPEED))))
    evaluations = [line for line in run.metrics if line["stage"] == stage and "valid_loss" in line]
    if evaluations:
        contents.append(Fold("Numbers of each validation", _evaluation_table(evaluations)))
    return Section(TITLES[stage], "\n\n".join(paragraphs), contents)


def _stage_figures(run: RunFiles, stage: str, panels: Mapping[str, Sequence[tuple[str, str, str]]]) -> list[str]:
    """Draw the curves of a stage. panels: title of each figure -> label, metric and colour of its curves."""
    figures: list[str] = []
    for text, metrics in panels.items():
        title = name_sequences(text, run.sequence_name)
        lines = without_repeats(read_curve(run, stage, metric, label, colour) for label, metric, colour in metrics)
        name, log = f"{stage}-{title.replace(' ', '-')}", title == "learning rate"
        figures += curve_figure(name, f"{TITLES[stage]}: {title}", lines, label_y_axis(title), logarithmic=log)
    return figures


def label_y_axis(title: str) -> str:
    """Add the unit to the title of a figure, as the label of its y axis."""
    return f"{title}\n({UNITS[title]})" if title in UNITS else title


def explain_stage(runs: Sequence[RunFiles], stage: str) -> tuple[str, str]:
    """Explain a stage and its curves, and warn if the runs were fine-tuned with different losses."""
    # A dictionary keeps the order; older runs have no such setting.
    losses = {run.config["finetune"].get("loss", "mse"): None for run in runs}
    # Runs of both objectives have both explanations.
    kinds = dict.fromkeys("spans" if stage == "pretrain" and hides_spans(run) else stage for run in runs)
    does, reading = (
        name_sequences(" ".join(texts), common_name(runs)) for texts in zip(*map(EXPLANATIONS.get, kinds), strict=True)
    )
    regression = " or the ".join(LOSSES[loss] for loss in losses if loss != "bins")
    parts = [f"{regression}{STANDARDIZED}"] if regression else []
    parts += [f"{LOSSES['bins']}{NATS}"] if "bins" in losses else []
    reading = reading.format(loss="; or the ".join(parts))
    if stage == "pretrain" or len(losses) == 1:
        return does, reading
    return does, f"{reading} The curves of different losses (finetune.loss) cannot be compared."


def common_name(runs: Sequence[RunFiles]) -> str:
    """Return the word of the runs' assay for one sequence; `sequence` if their assays have different words."""
    names = {run.sequence_name for run in runs}
    return names.pop() if len(names) == 1 else "sequence"


def _masked_table(masked: dict[str, Any]) -> Table:
    """Compare the best pretrained weights with the baselines."""
    columns = {"best saved model": masked}
    for name, baseline in masked["baselines"].items():
        guess = baseline.get("kmer", baseline.get("base", ""))
        columns[f"{BASELINES[name]}{f' ({guess})' if guess else ''}"] = baseline
    rows = [
        (title, *(f"{each[metric]:.4f}" if metric in each else "-" for each in columns.values()))
        for metric, title in MASKED.items()
        if metric in masked
    ]
    return Table(("", *columns), rows, frozenset(range(1, len(columns) + 1)))


def _length_text(run: RunFiles, stage: str) -> str:
    last = [line for line in run.metrics if line["stage"] == stage][-1]
    epochs = f"{last['epoch']:.3g} epoch{'' if last['epoch'] == 1 else 's'}"
    text = f"Training took {format_count(last['step'], 'step')} ({epochs}"
    result = run.summary["training"].get(stage) if run.summary is not None else None
    if result is None:
        return f"{text} so far)."
    metric = "accuracy" if stage == "pretrain" else "Pearson"
    best = f"after step {result['best_step']:,}, with the highest validation {metric}"
    return f"{text}, {result['seconds']:,.0f} s). The best saved model is the one {best}."


def _evaluation_table(lines: Sequence[dict[str, Any]]) -> Table:
    names = [name for name in lines[0] if name.startswith("valid_")]
    metrics = [name.removeprefix("valid_") for name in names]
    heads = ["step", "epoch", *(METRICS.get(name, name.replace("_", " ")) for name in metrics)]
    rows = [[f"{line['step']:,}", f"{line['epoch']:.3f}", *(f"{line[name]:.4f}" for name in names)] for line in lines]
    return Table(heads, rows, frozenset(range(len(heads))))
