"""A run as one HTML page: its directory and its dataset -> tables and pictures, as much as is there."""

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from model.reporting.dream_section import Scored, challenge_section, read_score
from model.reporting.prediction_sections import prediction_sections
from model.reporting.predictions import HeldOut, dataset_of, held_out
from model.reporting.run_sections import data_section, run_section, scores_section, stage_section
from model.runs.read import RunFiles, read_run
from pipeline.dataset.database import DatasetInfo
from pipeline.dataset.query import Columns, answer
from pipeline.errors import UserError
from pipeline.io.atomic import expect_folder, new_file
from pipeline.reporting.html import Section, page

STEPS = 3
"""How often `write_report` says what it does now."""


@dataclass(frozen=True)
class Report:
    """What `write_report` made. missing: what could not be shown, and why."""

    page: str
    run: str
    finished: bool
    missing: list[str]
    bytes: int


@dataclass(frozen=True)
class _Found:
    """What the dataset says; info is None where there is no dataset."""

    info: DatasetInfo | None = None
    labels: Columns | None = None
    held_out: HeldOut | None = None


def write_report(
    folder: Path,
    out: Path | None = None,
    dataset: Path | None = None,
    score: Path | None = None,
    step: Callable[[str], None] = lambda _: None,
) -> Report:
    """Write the page of a run to `out`, an .html file [default: report.html in its folder].

    dataset: the DuckDB file that it was trained on, if it is not where the run found it; score: what `promoter-bert
    score --json` printed of its predictions. The same run gives the same bytes. The page appears whole or not at all.
    Raises UserError for a folder that is no run, a dataset that is another one than the run's, and a place that cannot
    be written to.
    """
    run = read_run(folder)
    out = folder / "report.html" if out is None else out
    check_page_name(out)
    expect_folder(out)
    scored = None if score is None else read_score(score)
    with new_file(out) as file:
        file.touch()  # a place that cannot be written to is noticed before the work
        step("asking the dataset")
        found = _asked(run, dataset)
        missing = _missing(run, found)
        step("drawing")
        content = _page(run, found, scored, missing).encode()
        file.write_bytes(content)
        step("")
    return Report(str(out), run.name, run.summary is not None, missing, len(content))


def check_page_name(out: Path) -> None:
    """Raise UserError for a name that is none of an HTML file."""
    if out.suffix not in (".html", ".htm"):
        raise UserError(f"{out}: expected a name ending in .html")


def _asked(run: RunFiles, dataset: Path | None) -> _Found:
    with dataset_of(run, dataset) as opened:
        if opened is None:
            return _Found()
        connection, info = opened
        labels = answer(connection, "label_histogram") if info.cut is not None else None
        return _Found(info, labels, held_out(connection, run))


def _missing(run: RunFiles, found: _Found) -> list[str]:
    """What the page does not show, and why; a sentence each."""
    lines = []
    if run.summary is None:
        lines.append("Scores and predictions come with the end of the run.")
    if found.info is None:
        places = " or ".join(map(str, run.dataset_places))
        lines.append(
            f"The dataset is not at {places}: without it there are no labels to show; name it: promoter-bert report "
            f"{shlex.quote(str(run.folder))} --dataset PATH/{Path(run.config['dataset']['path']).name}"
        )
    elif run.summary is not None and found.held_out is None:
        lines.append("The run predicted no held-out promoters: its dataset has neither a test nor a validation split.")
    elif found.held_out is not None and found.held_out.split != "test":
        lines.append(
            "There is no test split. The predictions shown are those of the validation split, by which the best "
            "weights were chosen, so that they look a little better than those of new promoters would."
        )
    return lines


def _page(run: RunFiles, found: _Found, scored: Scored | None, missing: list[str]) -> str:
    sections: list[Section] = []
    if run.scores:
        sections.append(scores_section(run, found.held_out))
    sections.append(run_section(run))
    if found.info is not None and found.labels is not None:
        sections.append(data_section(found.info, found.labels))
    sections += [stage_section(run, stage) for stage in run.stages]
    if found.held_out is not None:
        sections += prediction_sections(found.held_out)
    if scored is not None:
        sections.append(challenge_section(scored, run.name))
    return page(
        f"promoter-bert: run {run.name}",
        " ".join([run.state, *missing]),
        sections,
        f"Dataset {run.facts['dataset_key']}; shards {run.facts['shard_key']}",
    )
