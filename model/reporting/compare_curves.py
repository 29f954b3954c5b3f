"""Curves of several runs in shared figures: a section per stage of the page that compares runs."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from model.config import STAGES
from model.reporting.run_plots import Curve, Dashes, curve_figure, curve_legend, read_curve
from model.reporting.run_sections import TITLES, common_name, explain_stage, label_y_axis
from model.runs.read import RunFiles, hides_spans
from model.scoring.metrics import base_perplexity
from pipeline.reporting.html import Content, Figures, Fold, Section
from pipeline.reporting.svg import HALF_WIDTH, render_svg
from pipeline.runtime.text import name_sequences

PANELS = {
    "pretrain": {
        "loss": "training loss (nats)",
        "valid_loss": "validation loss (nats)",
        "valid_accuracy": "validation accuracy",
    },
    "finetune": {
        "loss": "training loss",
        "valid_loss": "validation loss",
        "valid_pearson": "validation Pearson",
    },
}
"""Stage -> metric -> title of its figure."""
PER_BASE = {"loss": "training perplexity per base", "valid_loss": "validation perplexity per base"}
"""Metric -> title of its figure, for the pretraining of runs that predict different numbers of bases."""
PER_BASE_TEXT = (
    "These runs predict k-mers of different lengths, or single bases. A longer k-mer is harder to predict, so losses "
    "and accuracies cannot be compared. The figures show the perplexity per base, exp(loss / bases): the number of "
    "bases that the model still considers, 1 for perfect predictions and 4 for random guesses."
)
POINTS_TEXT = (
    "A point of the training loss is the mean over the steps since the previous point. A resumed training has points "
    "at other steps, so the training losses of two equal trainings may differ."
)
SPEED = {"promoters_per_second": "promoters per second"}
"""Metric -> title of its folded figure."""
NO_STAGE = "is a baseline without this stage"
NOT_TRAINED = {"pretrain": "was not pretrained", "finetune": "was not fine-tuned"}
LEGEND_WIDTH = 46
"""Characters per row of the legend."""


class ComparedRun(NamedTuple):
    """A run, and its name, colour and line style in figures."""

    files: RunFiles
    name: str
    label: str
    colour: str
    dashes: Dashes


def sequence_name(runs: Sequence[ComparedRun]) -> str:
    """Return the word for one sequence that all runs share."""
    return common_name([run.files for run in runs])


def stage_section(runs: Sequence[ComparedRun], stage: str) -> Section:
    """Draw the curves of a stage of all runs that have it."""
    trained = [run for run in runs if stage in run.files.stages]
    without = [f"{run.name} {_reason(run, stage)}, so it has no curve." for run in runs if run not in trained]
    per_base = stage == "pretrain" and len({_target_bases(run) for run in trained}) > 1
    texts = [
        *explain_stage([run.files for run in trained], stage),
        PER_BASE_TEXT * per_base,
        POINTS_TEXT,
        " ".join(without),
    ]
    figures = _figures(trained, stage, PER_BASE if per_base else PANELS[stage], per_base)
    contents: list[Content] = [Figures([_legend(trained, stage)]), Figures(figures)]
    speed = _figures(trained, stage, SPEED)
    if speed:
        contents.append(Fold("Speed", Figures(speed)))
    return Section(TITLES[stage], "\n\n".join(texts), contents)


def _target_bases(run: ComparedRun) -> int:
    """Return the bases per prediction of pretraining."""
    return 1 if hides_spans(run.files) else int(run.files.config["shards"]["k"])


def _per_base(curve: Curve | None, bases: int) -> Curve | None:
    """Convert a curve of losses in nats to perplexities per base, see base_perplexity. bases: per prediction."""
    return curve and replace(curve, values=[base_perplexity(loss, bases) for loss in curve.values])


def _reason(run: ComparedRun, stage: str) -> str:
    """Say why a run has no curves of a stage."""
    if run.files.baseline is not None:
        return NO_STAGE
    later = run.files.stages and STAGES.index(run.files.stages[-1]) > STAGES.index(stage)
    return NOT_TRAINED[stage] if later or run.files.summary is not None else f"has not logged stage {stage} yet"


def _figures(runs: Sequence[ComparedRun], stage: str, panels: Mapping[str, str], per_base: bool = False) -> list[str]:
    """Draw the curves of all runs. panels: metric -> title of its figure; per_base: losses as perplexity per base."""
    figures: list[str] = []
    for metric, text in panels.items():
        title = name_sequences(text, sequence_name(runs))
        lines = [read_curve(run.files, stage, metric, run.label, run.colour, run.dashes) for run in runs]
        if per_base:
            lines = [_per_base(line, _target_bases(run)) for line, run in zip(lines, runs, strict=True)]
        figures += curve_figure(
            f"{stage}-{metric}", f"{TITLES[stage]}: {title}", lines, label_y_axis(title), named=False
        )
    return figures


def _legend(runs: Sequence[ComparedRun], stage: str) -> str:
    lines = [Curve(run.label, [], [], run.colour, run.dashes) for run in runs]
    columns = max(LEGEND_WIDTH // (max(len(line.label) for line in lines) + 6), 1)
    height = 0.1 + 0.21 * -(-len(lines) // columns)
    title = f"{TITLES[stage]}: colours of the runs"
    return render_svg(f"{stage}-key", title, curve_legend(lines, columns), height, HALF_WIDTH)
