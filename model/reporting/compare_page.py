"""Several runs side by side: scores, what differs between them, and their curves over each other."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.config import STAGES
from model.reporting.curves import Series, series
from model.reporting.plots import DASHES, HUES, Bar, Curve, bars, curves, key
from model.reporting.run_page import check_page_name
from model.reporting.run_sections import SCORES, SPLITS, TITLES, interval_of, score_text, stage_says
from model.runs.fingerprint import flat
from model.runs.read import RunFiles, read_run
from pipeline.errors import UserError
from pipeline.io.atomic import expect_folder, new_file
from pipeline.reporting.html import Content, Figures, Section, Table, render_page
from pipeline.reporting.svg import HALF_WIDTH, MIDDLE_WIDTH, svg

NOT_COMPARED = ("run.name", "run.path")
"""Settings that say where a run lies, not what it is."""
PANELS = {
    "pretrain": (
        ("loss", "training loss"),
        ("valid_loss", "validation loss"),
        ("valid_accuracy", "validation accuracy"),
        ("promoters_per_second", "promoters a second"),
    ),
    "finetune": (
        ("loss", "training loss"),
        ("valid_loss", "validation loss"),
        ("valid_pearson", "validation Pearson"),
        ("promoters_per_second", "promoters a second"),
    ),
}
"""Metrics of each stage, and what they are."""
COMPARED = ("Pearson", "Spearman", "R²")
OTHER_PROMOTERS = "They are not all of the same dataset and splits, so that their scores are not of the same promoters."
LONGEST = 30
"""Letters of a name in a picture."""
LETTERS = 72
"""Of a key, in a row."""


@dataclass(frozen=True)
class Comparison:
    """What `compare_runs` found. differences: of settings, DeepSpeed's settings, versions and machine, a value a run;
    same_promoters: whether all runs are of one dataset and so held out the same promoters.
    """

    page: str
    runs: list[dict[str, Any]]
    differences: dict[str, list[Any]]
    same_promoters: bool


def compare_runs(folders: Sequence[Path], out: Path) -> Comparison:
    """Write the page of several run directories to `out`, an .html file.

    Runs that are not finished are shown with what is there. Raises UserError for folders that are no runs or are named
    twice, and for a place that cannot be written to.
    """
    check_page_name(out)
    expect_folder(out)
    runs = _read(folders)
    names = _names(runs)
    differing = differences(runs)
    same = len({run.facts["dataset_key"] for run in runs}) == 1
    with new_file(out) as file:
        file.write_text(_page(runs, names, differing, same), encoding="utf-8")
    return Comparison(str(out), [_as_dict(run, name) for run, name in zip(runs, names, strict=True)], differing, same)


def differences(runs: Sequence[RunFiles]) -> dict[str, list[Any]]:
    """What is not the same in all runs, by name: a value for each run, None where it has none."""
    facts = [
        {
            **flat(run.config),
            **flat(run.facts["ds_config"], "ds_config."),
            "python": run.facts["python"],
            **run.facts["packages"],
            "machine": run.facts["machine"],
            "gpus": ", ".join(run.facts["gpus"]) or "none",
            "git_commit": run.facts["git_commit"],
            "dataset_key": run.facts["dataset_key"][:16],
            "shard_key": run.facts["shard_key"][:16],
        }
        for run in runs
    ]
    names = list(dict.fromkeys(name for each in facts for name in each if name not in NOT_COMPARED))
    found = {name: [each.get(name) for each in facts] for name in names}
    return {name: values for name, values in found.items() if any(value != values[0] for value in values)}


def score_lines(found: Comparison) -> list[str]:
    """The held-out scores for a terminal, a line a run."""
    width = max(len(run["run"]) for run in found.runs)
    lines = []
    for run in found.runs:
        split = "test" if "test" in run["scores"] else next(iter(run["scores"]), "")
        shown = f"{split} Pearson {score_text(run['scores'][split], 'pearson')}" if split else "not finished"
        lines.append(f"  {run['run']:{width}}  {shown}")
    if not found.same_promoters:
        lines.append(f"note: {OTHER_PROMOTERS}")
    return lines


def _read(folders: Sequence[Path]) -> list[RunFiles]:
    """Raises UserError that names all of the folders that cannot be compared, so that they can be left out at once."""
    runs, problems = [], []
    for place, folder in enumerate(folders):
        try:
            runs.append(read_run(folder))
        except UserError as error:
            problems.append(str(error))
        if folder.resolve() in {other.resolve() for other in folders[:place]}:
            problems.append(f"{folder}: named twice")
    if problems:
        way_out = [f"leave {'it' if len(problems) == 1 else 'them'} out to compare the others"] if runs else []
        raise UserError("\n".join([*problems, *way_out]))
    return runs


def _names(runs: Sequence[RunFiles]) -> list[str]:
    """The runs' names; their folders' where two have one name."""
    count = Counter(run.name for run in runs)
    return [run.name if count[run.name] == 1 else str(run.folder) for run in runs]


def _as_dict(run: RunFiles, name: str) -> dict[str, Any]:
    return {
        "run": name,
        "folder": str(run.folder),
        "finished": run.summary["finished"] if run.summary else None,
        "dataset_key": run.facts["dataset_key"],
        "training": run.summary["training"] if run.summary else {},
        "scores": run.scores,
    }


def _page(runs: Sequence[RunFiles], names: Sequence[str], differing: dict[str, list[Any]], same: bool) -> str:
    sections = [_scores(runs, names), _differences(names, differing)]
    sections += [_stage(runs, names, stage) for stage in STAGES if any(stage in run.stages for run in runs)]
    comparable = (
        "All are of one dataset and its splits, so that they were scored on the same promoters."
        if same
        else OTHER_PROMOTERS
    )
    unfinished = [f"{name} is not finished." for run, name in zip(runs, names, strict=True) if run.summary is None]
    return render_page(
        "promoter-bert: runs compared", " ".join([f"{len(runs)} runs.", comparable, *unfinished]), sections,
        ", ".join(str(run.folder) for run in runs),
    )  # fmt: skip


def _scores(runs: Sequence[RunFiles], names: Sequence[str]) -> Section:
    rows, found = [], []
    for run, name in zip(runs, names, strict=True):
        if not run.scores:
            rows.append([name, "not finished", *([""] * len(COMPARED))])
            continue
        split = "test" if "test" in run.scores else next(iter(run.scores))
        score = run.scores[split]
        rows.append([name, f"{score['rows']:,} ({SPLITS[split]})", *(SCORES[each](score) for each in COMPARED)])
        found.append(Bar(_short(name), score["pearson"], interval_of(score, "pearson"), _hue(names.index(name))))
    table = Table(["run", "promoters", *COMPARED], rows, frozenset(range(1, len(COMPARED) + 2)))
    height = 0.9 + 0.32 * len(found)
    more: list[Content] = (
        [Figures([svg("scores", "Scores", height, bars(found, "Pearson"), MIDDLE_WIDTH)])] if found else []
    )
    return Section("Scores", "In parentheses and as lines: 95 % intervals, where the run holds them.", [table, *more])


def _differences(names: Sequence[str], differing: dict[str, list[Any]]) -> Section:
    if not differing:
        return Section("What differs", "Nothing: the runs have the same settings, versions and machine.")
    rows = [[name, *map(_cell, values)] for name, values in differing.items()]
    return Section(
        "What differs", "All other settings, versions and machines are the same.", [Table(["", *names], rows)]
    )


def _cell(value: Any) -> str:
    """A setting for a table: an empty text and what an older run does not know are said."""
    return "not known" if value is None else str(value) or "(empty)"


def _stage(runs: Sequence[RunFiles], names: Sequence[str], stage: str) -> Section:
    pictures = []
    for metric, title in PANELS[stage]:
        lines = _lines(runs, names, stage, metric)
        if lines:
            heading = f"{TITLES[stage]}: {title}"
            pictures.append(svg(f"{stage}-{metric}", heading, 2.5, curves(lines, title, named=False), HALF_WIDTH))
    says = stage_says([run for run in runs if stage in run.stages], stage)
    return Section(TITLES[stage], says, [Figures([_key(names, stage)]), Figures(pictures)])


def _key(names: Sequence[str], stage: str) -> str:
    """Which line is which run's."""
    lines = [_curve(place, name, Series([], [])) for place, name in enumerate(names)]
    columns = max(LETTERS // (max(len(_short(name)) for name in names) + 6), 1)
    height = 0.1 + 0.21 * -(-len(lines) // columns)
    return svg(f"{stage}-key", f"{TITLES[stage]}: colours of the runs", height, key(lines, columns), MIDDLE_WIDTH)


def _lines(runs: Sequence[RunFiles], names: Sequence[str], stage: str, metric: str) -> list[Curve]:
    found = [
        _curve(place, name, series(run, stage, metric), metric.startswith("valid_"))
        for place, (run, name) in enumerate(zip(runs, names, strict=True))
    ]
    return [line for line in found if line.epochs]


def _curve(place: int, name: str, line: Series, dots: bool = False) -> Curve:
    return Curve(_short(name), line.epochs, line.values, _hue(place), DASHES[place // len(HUES) % len(DASHES)], dots)


def _short(name: str) -> str:
    """The end of a long name, such as a folder's, for a picture."""
    return name if len(name) <= LONGEST else f"...{name[3 - LONGEST :]}"


def _hue(place: int) -> str:
    return HUES[place % len(HUES)]
