"""Tables of docs/results.md, made from the results of study.py. The options draw its plots.

    python -m bench.quality.tables [--plot docs/quality.svg] [--gain docs/pretraining.svg]

A cell holds the mean over the seeds and, in brackets, the lowest and highest value. A difference is the mean of the
differences per seed, with its 95 % interval by Student's t.
"""

import argparse
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bench.measure import markdown
from bench.quality.plots import plot, plot_gain
from bench.quality.scores import LABELS, METHODS, Results, Scores, difference_interval, scores
from bench.quality.trials import (
    ABLATIONS,
    CHOICES_AT,
    CNN,
    CNN_LONG,
    CNN_MUON,
    CNN_TWO_STRANDS,
    LONG,
    MUON,
    PRESET,
    SEEDS,
    SIZES,
    SPLITS,
    TWO_STRANDS,
)

HERE = Path(__file__).resolve().parent
VARIANT_LABELS = {
    "ridge": "ridge",
    PRESET: "small.yaml, short", LONG: "small.yaml, long", TWO_STRANDS: "small.yaml, both strands, Adam",
    MUON: "small.yaml, both strands",
    CNN: "CNN, short", CNN_LONG: "CNN, long", CNN_TWO_STRANDS: "CNN, both strands, Adam",
    CNN_MUON: "CNN, both strands, Muon",
}  # fmt: skip
"""Name in a table of each variant of the preset and of the CNN."""


def cell(values: Scores) -> str:
    """Format mean, lowest and highest score; an empty text for no scores."""
    if not values:
        return ""
    each = list(values.values())
    return f"{number(float(np.mean(each)))} ({number(min(each))} to {number(max(each))})"


def number(value: float) -> str:
    """Format a correlation or a difference of correlations: .750, -.012."""
    return f"{value:.3f}".replace("0.", ".", 1)


def difference(values: Scores, others: Scores) -> str:
    """Format the mean difference of two methods over seeds; an empty text if fewer than two seeds have both."""
    interval = difference_interval(values, others)
    if interval is None:
        return ""
    mean, half = interval
    return f"{mean:+.3f} ({mean - half:+.3f} to {mean + half:+.3f})".replace("0.", ".")


def score_and_difference(values: Scores, others: Scores) -> tuple[str, str]:
    """Format the scores of another method, and the mean difference from it."""
    return cell(others), difference(values, others)


def sizes(results: Results, metric: str) -> str:
    """Make the table of learning curves: one row per split and size, one column per method."""
    rows = []
    for split in SPLITS:
        for size in SIZES:
            each = {m: scores(results, metric, study="sizes", split=split, size=size, variant=m) for m in METHODS}
            gain = difference(each["pretrained"], each["scratch"])
            rows.append([f"{split}, {size:,}", *(cell(each[m]) for m in METHODS), gain])
    head = [f"{metric.title()}: split, training rows", *LABELS.values(), "pretrained minus scratch"]
    return markdown(head, rows)


def choices(results: Results) -> str:
    """Make the table of choices: each compared with the same training without it."""
    trials = [one for one in results if one["study"] == "choices"]
    rows: list[list[str]] = []
    for size in sorted({one["size"] for one in trials}):
        base = scores(results, study="sizes", split="random", size=size, variant="pretrained")
        rows.append([f"{size:,}: pretrained, as above", cell(base), ""])
        for name in dict.fromkeys(one["variant"] for one in trials if one["size"] == size):
            variant = [one for one in trials if (one["size"], one["variant"]) == (size, name)]
            rows.append([f"{size:,}: {name}", cell(scores(variant)), difference(scores(variant), base)])
            both = scores([one for one in variant if "both_pearson" in one], "both_pearson")
            if both:
                rows.append([f"{size:,}: {name}, both strands predicted", cell(both), difference(both, base)])
    return markdown(["training rows, random split", "Pearson", "minus pretrained"], rows)


def presets(results: Results, metric: str) -> str:
    """Make the table of the preset's short training, beside all other methods on the same rows.

    The CNN reads six bases on both sides of the insert, as the preset does, or the insert alone, as the others do.
    """
    columns = {
        "small.yaml, short training": ("presets", PRESET),
        "CNN with 6 bases on both sides": ("presets", CNN),
        "CNN": ("sizes", "cnn"),
        "ridge": ("sizes", "ridge"),
        "the paper's BERT": ("sizes", "pretrained"),
    }
    rows = []
    for split in SPLITS:
        for size in SIZES:
            each = {
                name: scores(results, metric, study=study, split=split, size=size, variant=variant)
                for name, (study, variant) in columns.items()
            }
            small, cnn, *_ = each.values()
            if small:
                rows.append([f"{split}, {size:,}", *map(cell, each.values()), difference(small, cnn)])
    head = [f"{metric.title()}: split, training rows", *columns, "small.yaml minus CNN with 6 bases"]
    return markdown(head, rows)


def on_seeds_of_first(results: Results, metric: str, *methods: tuple[str, str]) -> Iterator[tuple[str, list[Scores]]]:
    """Yield "split, size" and the scores of each method on the seeds of the first one, where that has any.

    methods: study and variant of each.
    """
    for split in SPLITS:
        for size in SIZES:
            first, *others = (
                scores(results, metric, study=study, variant=variant, split=split, size=size)
                for study, variant in methods
            )
            if first:
                yield f"{split}, {size:,}", [first, *(on_seeds_of(first, other) for other in others)]


def on_seeds_of(first: Scores, other: Scores) -> Scores:
    """Select the scores of another method on the seeds of the first one."""
    return {seed: value for seed, value in other.items() if seed in first}


def on_all_splits(results: Results, metric: str, variant: str, size: int) -> Scores:
    """Select one metric of a variant on both kinds of splits, with a number of its own for each split."""
    return {
        place * len(SEEDS) + seed: value
        for place, split in enumerate(SPLITS)
        for seed, value in scores(results, metric, study="presets", variant=variant, split=split, size=size).items()
    }


def two_strands(results: Results, metric: str) -> str:
    """Make the table of the preset and of the CNN, both trained on both strands.

    metric: pearson or spearman of one strand, both_pearson or both_spearman of the mean prediction over both. The
    scores of the others are those on the seeds of the preset. The rows of all splits have methods that ran on all.
    """
    variants = MUON, CNN_MUON, CNN_TWO_STRANDS, TWO_STRANDS
    places = [*on_seeds_of_first(results, metric, *(("presets", variant) for variant in variants))]
    for size in SIZES:
        small, *others = (on_all_splits(results, metric, variant, size) for variant in variants)
        if len(small) > len(SEEDS):
            complete = (other if other.keys() >= small.keys() else {} for other in others)
            places.append((f"all, {size:,}", [small, *(on_seeds_of(small, other) for other in complete)]))
    rows = [
        [
            place,
            str(len(small)),
            cell(small),
            *score_and_difference(small, muon),
            *score_and_difference(small, cnn),
            cell(adam),
        ]
        for place, (small, muon, cnn, adam) in places
    ]
    strands = "both strands" if metric.startswith("both_") else "one strand"
    head = [f"{metric.removeprefix('both_').title()}, {strands}: splits, training rows", "trainings"]
    cnns = [column for name in ("Muon", "Adam") for column in (f"CNN, {name}", f"small.yaml minus CNN, {name}")]
    return markdown([*head, "small.yaml", *cnns, "small.yaml with Adam"], rows)


def long_training(results: Results, metric: str) -> str:
    """Make the table of the long trainings on one strand, beside the short ones, on the seeds of the preset's."""
    methods = ("presets", LONG), ("presets", CNN_LONG), ("presets", PRESET), ("presets", CNN)
    rows = []
    for place, (long, cnn_long, short, cnn) in on_seeds_of_first(results, metric, *methods):
        cells = map(cell, (long, cnn_long, short, cnn))
        rows.append([place, str(len(long)), *cells, difference(long, short), difference(long, cnn_long)])
    head = [f"{metric.title()}: split, training rows", "seeds", "small.yaml, long", "CNN, long", "small.yaml, short"]
    return markdown([*head, "CNN, short", "small.yaml: long minus short", "long: small.yaml minus CNN"], rows)


def overlap(results: Results, metric: str) -> str:
    """Make the table of splits without shared runs: ridge, and all trainings of preset and CNN that exist."""
    trials = [one for one in results if one["study"] == "overlap"]
    variants = [name for name in VARIANT_LABELS if any(one["variant"] == f"{name}-overlap" for one in trials)]
    rows = [
        [f"{size:,}", *(cell(scores(trials, metric, size=size, variant=f"{name}-overlap")) for name in variants)]
        for size in SIZES
        if any(one["size"] == size for one in trials)
    ]
    head = [f"{metric.title()}: training rows, no shared runs", *(VARIANT_LABELS[name] for name in variants)]
    return markdown(head, rows)


def spans(results: Results) -> str:
    """Make the table of pretraining on hidden spans: the preset's training with and without it."""
    methods = ("spans", f"{MUON}-pretrained"), ("presets", MUON)
    rows = [
        [place, cell(pretrained), cell(without), difference(pretrained, without)]
        for place, (pretrained, without) in on_seeds_of_first(results, "pearson", *methods)
    ]
    return markdown(["Pearson: split, training rows", "pretrained on spans", "from scratch", "gain"], rows)


def ablations(results: Results) -> str:
    """Make the table of single settings: each compared with the preset's short training without the change."""
    fixed: dict[str, Any] = {"split": "random", "size": CHOICES_AT}
    base = scores(results, study="presets", variant=PRESET, **fixed)
    rows = [["none", cell(base), ""]]
    for variant, changed in ABLATIONS.items():
        each = scores(results, study="ablations", variant=f"{PRESET}-{variant}", **fixed)
        if each:
            rows.append([f"`{changed}`", cell(each), difference(each, base)])
    return markdown([f"{CHOICES_AT:,} rows, random splits: change of short training", "Pearson", "minus none"], rows)


def plant(results: Results) -> str:
    """Make the table of plant promoters: one row per method."""
    names = {PRESET: "small.yaml", "cnn": LABELS["cnn"], "ridge": LABELS["ridge"], "scratch": LABELS["scratch"]}
    preset = scores(results, study="plant", variant=PRESET)
    rows = []
    for variant, label in names.items():
        each = [scores(results, metric, study="plant", variant=variant) for metric in ("pearson", "spearman")]
        rows.append([label, *map(cell, each), "" if variant == PRESET else difference(preset, each[0])])
    return markdown(["plant promoters, five random splits", "Pearson", "Spearman", "small.yaml minus this"], rows)


def dream(results: Results) -> str:
    """Make the table of noisy promoters: held-out rows, then public rows of the challenge by subset."""
    trials = [one for one in results if one["study"] == "dream"]
    rows = []
    for name in dict.fromkeys(one["variant"] for one in trials):
        values = [scores(trials, metric, variant=name) for metric in ("pearson", "spearman")]
        rows.append([f"{LABELS[name]}: held-out rows", *map(cell, values)])
    public = {one["seed"]: one["public"] for one in trials if "public" in one}
    first: dict[str, Any] = next(iter(public.values()), {})
    for subset in first.get("subsets", {}):
        parts = {seed: score["subsets"][subset] for seed, score in public.items()}
        rows.append(
            [
                f"{LABELS['pretrained']}: public rows, {subset}",
                *(by_metric(parts, metric) for metric in ("pearson", "spearman")),
            ]
        )
    if public:
        rows.append(
            [
                f"{LABELS['pretrained']}: public rows, Score",
                *(by_metric(public, f"{m}_score") for m in ("pearson", "spearman")),
            ]
        )
    return markdown(["", "Pearson", "Spearman"], rows)


def by_metric(parts: dict[int, dict[str, Any]], metric: str) -> str:
    """Format one metric of the results by seed."""
    return cell({seed: part[metric] for seed, part in parts.items()})


def tables(results: Results) -> Iterable[str]:
    """Yield all tables as Markdown."""
    yield sizes(results, "pearson")
    yield sizes(results, "spearman")
    studies = {one["study"] for one in results}
    if "presets" in studies:
        yield presets(results, "pearson")
        yield presets(results, "spearman")
    if any(one["variant"] == TWO_STRANDS for one in results):
        for metric in ("pearson", "both_pearson", "spearman", "both_spearman"):
            yield two_strands(results, metric)
    if any(one["variant"] == LONG for one in results):
        yield long_training(results, "pearson")
        yield long_training(results, "spearman")
    if "overlap" in studies:
        yield overlap(results, "pearson")
        yield overlap(results, "spearman")
    if any(one["variant"] == f"{MUON}-pretrained" for one in results):
        yield spans(results)
    if "ablations" in studies:
        yield ablations(results)
    if "plant" in studies:
        yield plant(results)
    if "choices" in studies:
        yield choices(results)
    if "dream" in studies:
        yield dream(results)


def main() -> None:
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("--results", type=Path, default=HERE / "quality.json", help="default: quality.json")
    cli.add_argument("--plot", type=Path, help=".svg file to write; default: no plot")
    cli.add_argument("--gain", type=Path, help=".svg file of the gain by pretraining; default: no plot")
    args = cli.parse_args()
    results: Results = json.loads(args.results.read_text())
    print("\n\n".join(tables(results)))
    if args.plot:
        plot(results, args.plot)
    if args.gain:
        plot_gain(results, args.gain)


if __name__ == "__main__":
    main()
