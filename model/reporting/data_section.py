"""Section of a run's page on its dataset: the sizes of the splits that it used, and a histogram of the labels."""

from model.reporting.predictions import DatasetResults
from model.reporting.run_sections import TITLES
from model.runs.read import SPLITS, RunFiles
from pipeline.reporting import dataset_plots as plots
from pipeline.reporting.dataset_page import threshold_text
from pipeline.reporting.html import Figures, Section, Table
from pipeline.reporting.svg import MIDDLE_WIDTH, render_svg
from pipeline.reporting.text import unit_text
from pipeline.runtime.text import format_count


def data_section(run: RunFiles, results: DatasetResults) -> list[Section]:
    """Show the splits that a run used, and a histogram of the labels; no section without labels.

    The pretraining threshold is shown for a run that was pretrained on this dataset.
    """
    info, threshold = results.info, results.threshold
    if info is None or threshold is None or results.labels is None:
        return []
    name, is_pretrained = run.sequence_name, run.is_pretrained
    sizes = {split: f"{rows:,}" for split, rows in info.split_rows.items()}
    rows = [
        (TITLES[stage], *(sizes.get(f"{stage}/{split}", "") for split in ("train", "valid", "test")))
        for stage in TITLES
        if stage == "finetune" or is_pretrained
    ]
    use = threshold_text(threshold, name) if is_pretrained else _without_pretraining(run)
    draw = plots.label_histogram(results.labels, threshold.cut if is_pretrained else None, name, info.unit)
    title = "Labels and the threshold" if is_pretrained else "Labels"
    return [
        Section(
            "Data",
            f"{format_count(info.promoters, name)}. {use} {unit_text(info.unit)} "
            f"The table shows the number of {name}s per split.",
            [
                Table(("stage", "train", *SPLITS.values()), rows, frozenset({1, 2, 3})),
                Figures([render_svg("labels", title, draw, 3.2, MIDDLE_WIDTH)]),
            ],
        )
    ]


def _without_pretraining(run: RunFiles) -> str:
    """Say what a run without pretraining on this dataset used."""
    split = "the training split of fine-tuning"
    if run.baseline is not None:
        return f"This baseline was trained on {split}."
    if run.config["finetune"]["start"] == "scratch":
        return f"This run was trained on {split} only, from random weights: it has no pretraining."
    return f"This run was fine-tuned on {split}. Its pretrained weights come from another run."
