"""Writer of the page that compares runs: scores, differences in settings, and curves in shared figures."""

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.config import STAGES
from model.reporting.compare_curves import ComparedRun, sequence_name, stage_section
from model.reporting.paired_tests import PairedTest, compare_pairs, tests_section
from model.reporting.run_plots import (
    DASHES,
    HUES,
    Bar,
    bars,
    short_name,
)
from model.reporting.run_sections import (
    SCORES,
    interval_of,
    score_text,
)
from model.runs.fingerprint import flatten
from model.runs.read import SPLITS, VALIDATION_CHOSE, RunFiles, held_out_split, list_scale_warnings, read_run
from pipeline.errors import UserError
from pipeline.io.atomic import new_file
from pipeline.reporting.html import Content, Figures, Section, Table, expect_page_name, render_page
from pipeline.reporting.svg import MIDDLE_WIDTH, render_svg
from pipeline.reporting.text import SHORT_KEY
from pipeline.runtime.text import format_count, name_sequences, plain_number

IGNORED_SETTINGS = ("run.name", "run.path")
"""Settings that differ between any two runs: name and path."""
STARTS = {
    "scratch": "random weights",
    "pretrained": "pretrained weights",
    "frozen": "pretrained weights, encoder frozen",
}
"""Value of finetune.start -> its meaning."""
SETTINGS = {"finetune.start": "start of fine-tuning (finetune.start)"}
"""Setting -> its name on the page; other settings keep their keys."""
SCORE_COLUMNS = ("Pearson", "Spearman", "R²")
DIFFERENCES = "Settings that differ"
OTHER_PROMOTERS = (
    "The runs differ in dataset or splits: they were scored on different rows, so their scores cannot be compared."
)
SAME_ROWS = "The runs differ in dataset or splits, but were scored on the same held-out rows."


@dataclass(frozen=True)
class Comparison:
    """Result of `compare_runs`.

    page: its path. differences: setting, DeepSpeed setting, version or machine -> one value per run. same_promoters:
    whether all runs have the same dataset, and so the same held-out promoters. tests: of the differences of each run
    from the first one, by paired bootstrap; not_tested: one sentence per pair without a test.
    """

    page: str
    runs: list[dict[str, Any]]
    differences: dict[str, list[Any]]
    same_promoters: bool
    tests: list[PairedTest]
    not_tested: list[str]


def compare_runs(folders: Sequence[Path], out: Path) -> Comparison:
    """Write the page that compares run directories to `out`, an .html file.

    Unfinished runs are shown with their results so far. Raises UserError for folders without a run, duplicate folders,
    and an output that cannot be written.
    """
    expect_page_name(out)
    files = _read_runs(folders)
    count = Counter(run.name for run in files)
    runs = []
    for run, (dashes, colour) in zip(files, itertools.cycle(itertools.product(DASHES, HUES)), strict=False):
        name = run.name if count[run.name] == 1 else str(run.folder)
        runs.append(ComparedRun(run, name, short_name(name), colour, dashes))
    differing = differences(files)
    same = len({run.facts["dataset_key"] for run in files}) == 1
    tests, not_tested = compare_pairs([(run.name, run.files) for run in runs])
    result = Comparison(str(out), [_as_dict(run) for run in runs], differing, same, tests, not_tested)
    with new_file(out) as file:
        file.write_text(_page(runs, result), encoding="utf-8")
    return result


def differences(runs: Sequence[RunFiles]) -> dict[str, list[Any]]:
    """Collect settings, versions, machines and processes that differ: name -> value per run, None if not recorded.

    Numbers of processes are compared if all runs have checkpoints, which record them. Settings that do not apply to a
    baseline do not differ by that alone.
    """
    facts = [
        {
            **flatten(run.config),
            **flatten(run.facts["ds_config"], "ds_config."),
            "python": run.facts["python"],
            **run.facts["packages"],
            "machine": run.facts["machine"],
            "gpus": ", ".join(run.facts["gpus"]) or "none",
            "git_commit": run.facts["git_commit"],
            "dataset_key": run.facts["dataset_key"][:SHORT_KEY],
            "shard_key": run.facts["shard_key"][:SHORT_KEY] or None,
        }
        for run in runs
    ]
    names = dict.fromkeys(name for each in facts for name in each if name not in IGNORED_SETTINGS)
    values_of = {name: [each.get(name) for each in facts] for name in names}
    processes = [run.processes for run in runs]
    if None not in processes:
        values_of["processes"] = processes
    if any(run.baseline for run in runs):
        values_of = {"method": [run.method for run in runs], **values_of}
    return {name: values for name, values in values_of.items() if _differ(runs, values)}


def _differ(runs: Sequence[RunFiles], values: Sequence[Any]) -> bool:
    """Return whether the values of one setting differ between the runs to which it applies."""
    applying = [value for run, value in zip(runs, values, strict=True) if run.baseline is None or value is not None]
    return any(value != applying[0] for value in applying)


def score_lines(comparison: Comparison) -> list[str]:
    """Format the held-out scores for a terminal, one line per run."""
    width = max(len(run["run"]) for run in comparison.runs)
    lines = []
    for run in comparison.runs:
        split = held_out_split(run["scores"])
        text = f"{split} Pearson {score_text(run['scores'][split], 'pearson')}" if split else "not finished"
        lines.append(f"  {run['run']:{width}}  {text}")
    if not comparison.same_promoters:
        lines.append(f"note: {SAME_ROWS if _are_same_rows(comparison) else OTHER_PROMOTERS}")
    return [*lines, *(f"warning: {warning}" for warning in _warnings(comparison))]


def _warnings(comparison: Comparison) -> list[str]:
    """Warn of validation rows that also chose the weights, and per run of predictions on another scale."""
    split_of = {run["run"]: held_out_split(run["scores"]) for run in comparison.runs}
    validated = [name for name, split in split_of.items() if split == "valid"]
    who = "" if len(validated) == len(split_of) else f" of {', '.join(validated)}"
    chosen = (
        f"the scores{who} are those of the validation split, which {VALIDATION_CHOSE}; scores on new rows are expected "
        "to be slightly lower"
    )
    return [
        *([chosen] if validated else []),
        *(
            f"{run['run']}, {warning}"
            for run in comparison.runs
            if (split := split_of[run["run"]])
            for warning in list_scale_warnings({split: run["scores"][split]})
        ),
    ]


def _are_same_rows(comparison: Comparison) -> bool:
    """Return whether all runs were scored on the same promoters, also if their datasets differ."""
    return comparison.same_promoters or bool(comparison.tests and not comparison.not_tested)


def _read_runs(folders: Sequence[Path]) -> list[RunFiles]:
    """Read all runs. One UserError names all invalid folders, so that the user can omit them at once."""
    runs, problems = [], []
    for place, folder in enumerate(folders):
        try:
            runs.append(read_run(folder))
        except UserError as error:
            problems.append(str(error))
        if folder.resolve() in {other.resolve() for other in folders[:place]}:
            problems.append(f"{folder}: duplicate; expected each run once")
    if problems:
        fix = [f"fix: omit {'it' if len(problems) == 1 else 'them'} to compare the others"] if runs else []
        raise UserError("\n".join([*problems, *fix]))
    return runs


def _as_dict(run: ComparedRun) -> dict[str, Any]:
    summary = run.files.summary
    return {
        "run": run.name,
        "folder": str(run.files.folder),
        "finished": summary["finished"] if summary else None,
        "dataset_key": run.files.facts["dataset_key"],
        "training": summary["training"] if summary else {},
        "scores": run.files.scores,
    }


def _page(runs: Sequence[ComparedRun], result: Comparison) -> str:
    sections = [_scores(runs, _warnings(result))]
    if result.tests or result.not_tested:
        sections.append(tests_section(result.tests, result.not_tested))
    sections.append(_differences(runs, result.differences))
    sections += [stage_section(runs, stage) for stage in STAGES if any(stage in run.files.stages for run in runs)]
    same = "All were scored on the same promoters (same dataset and splits)."
    scored = same if result.same_promoters else SAME_ROWS if _are_same_rows(result) else OTHER_PROMOTERS
    unfinished = [f"{run.name} is not finished." for run in runs if run.files.summary is None]
    return render_page(
        "promoter-bert: comparison of runs",
        " ".join([f"{format_count(len(runs), 'run')}.", name_sequences(scored, sequence_name(runs)), *unfinished]),
        sections,
        ", ".join(str(run.files.folder) for run in runs),
    )


def _scores(runs: Sequence[ComparedRun], warnings: Sequence[str]) -> Section:
    rows, scored = [], []
    for run in runs:
        split = held_out_split(run.files.scores)
        if split is None:
            rows.append([run.name, "not finished", *([""] * len(SCORE_COLUMNS))])
            continue
        score = run.files.scores[split]
        rows.append(
            [run.name, f"{score['rows']:,} ({SPLITS[split]})", *(SCORES[each](score) for each in SCORE_COLUMNS)]
        )
        scored.append(Bar(run.label, score["pearson"], interval_of(score, "pearson"), run.colour))
    heads = ["run", f"{sequence_name(runs)}s", *SCORE_COLUMNS]
    contents: list[Content] = [Table(heads, rows, frozenset(range(1, len(heads))))]
    if labels := list(dict.fromkeys(label for run in runs for label in run.files.labels)):
        contents.append(_label_scores(runs, labels))
    if scored:
        height = 0.9 + 0.32 * len(scored)
        draw = bars(scored, f"Pearson correlation on held-out {sequence_name(runs)}s (no unit)")
        contents.append(Figures([render_svg("scores", "Scores", draw, height, MIDDLE_WIDTH)]))
    return Section(
        "Scores",
        "Pearson and Spearman are correlations of predicted with measured expression on held-out "
        f"{sequence_name(runs)}s: 1 is perfect, 0 is no relation. In parentheses and as a line on the bar: 95 % "
        "confidence intervals, if the run recorded them." + "".join(f"\n\nWarning: {warning}." for warning in warnings),
        contents,
    )


def _label_scores(runs: Sequence[ComparedRun], labels: Sequence[str]) -> Table:
    """Make a table of the Pearson of each label: a row per label, a column per run, empty without a score."""
    scores = [run.files.scores.get(held_out_split(run.files.scores) or "", {}) for run in runs]
    names = [f"pearson/{label}" for label in labels]
    rows = [
        [label, *(score_text(score, name) if name in score else "" for score in scores)]
        for label, name in zip(labels, names, strict=True)
    ]
    return Table(["Pearson of label", *(run.name for run in runs)], rows, frozenset(range(1, len(runs) + 1)))


def _differences(runs: Sequence[ComparedRun], differing: dict[str, list[Any]]) -> Section:
    names, baselines = [run.name for run in runs], [run.files.baseline is not None for run in runs]
    if not differing:
        return Section(DIFFERENCES, "None: the runs have the same settings, versions and machine.")
    rows = [
        [
            SETTINGS.get(name, name),
            *(_value_text(name, value, is_baseline) for value, is_baseline in zip(values, baselines, strict=True)),
        ]
        for name, values in differing.items()
    ]
    return Section(
        DIFFERENCES,
        "Settings, versions, machines and numbers of processes that differ between the runs. All others are the same.",
        [Table(["setting", *names], rows)],
    )


def _value_text(name: str, value: Any, is_baseline: bool) -> str:
    if value is None:
        return "-" if is_baseline else "not recorded"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "(empty)"
    if isinstance(value, bool):
        return str(value).lower()
    value = plain_number(value)
    return STARTS.get(value, str(value)) if name == "finetune.start" else str(value) or "(empty)"
