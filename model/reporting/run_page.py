"""Writer of a run's page: run directory and dataset -> tables and figures, as far as they exist."""

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from model.reporting.baselines_section import baselines_section
from model.reporting.data_section import data_section
from model.reporting.dream_section import dream_section, read_score
from model.reporting.prediction_sections import prediction_sections
from model.reporting.predictions import DatasetResults, query_dataset
from model.reporting.run_sections import scores_section, stage_section
from model.reporting.settings_section import settings_section
from model.runs.read import VALIDATION_CHOSE, RunFiles, find_baselines, read_run
from model.scoring.dream import DreamScore
from pipeline.io.atomic import new_file
from pipeline.reporting.html import Section, expect_page_name, render_page

STEPS = 3
"""Number of calls of `write_report` to on_step."""


@dataclass(frozen=True)
class Report:
    """Result of `write_report`. page: its path; missing: one sentence per part that the page does not show."""

    page: str
    run: str
    finished: bool
    missing: list[str]
    bytes: int


def write_report(
    folder: Path | str,
    out: Path | str | None = None,
    dataset: Path | str | None = None,
    score: Path | str | None = None,
    on_step: Callable[[str], None] = lambda _: None,
) -> Report:
    """Write the page of a run directory to `out`, an .html file [default: report.html in the directory].

    dataset: the DuckDB file of the training, if it was moved. score: output of `promoter-bert score --json`. on_step:
    called with the name of each step before it begins, and with "" at the end. The same run gives the same bytes. The
    file is written atomically. Raises UserError for a folder without a run, the dataset of another run, an invalid
    score, and an output that cannot be written.
    """
    run = read_run(Path(folder))
    folder = run.folder
    out = folder / "report.html" if out is None else Path(out)
    expect_page_name(out)
    score_result = None if score is None else read_score(Path(score))
    with new_file(out) as file:
        file.touch()  # fails at once if the folder is read-only
        on_step("querying the dataset")
        results = query_dataset(run, dataset)
        missing = _missing(run, results)
        on_step("drawing")
        content = _page(run, results, score_result, missing).encode()
        file.write_bytes(content)
        on_step("")
    return Report(str(out), run.name, run.summary is not None, missing, len(content))


def _missing(run: RunFiles, results: DatasetResults) -> list[str]:
    lines = []
    if run.summary is None:
        lines.append("Scores and predictions are written at the end of the run.")
    if results.info is None:
        places = " or ".join(map(str, run.dataset_candidates))
        lines.append(
            f"No dataset at {places}, so labels and predictions are not shown; fix: promoter-bert report "
            f"{shlex.quote(str(run.folder))} --dataset PATH/{Path(run.config['dataset']['path']).name}"
        )
    elif run.summary is not None and results.held_out is None:
        lines.append("The dataset has no test split and no validation split, so there are no held-out predictions.")
    elif results.held_out is not None and results.held_out.split != "test":
        lines.append(
            "There is no test split. The predictions shown are those of the validation split, which "
            f"{VALIDATION_CHOSE}. Scores on new {run.sequence_name}s are expected to be slightly lower."
        )
    return lines


def _page(run: RunFiles, results: DatasetResults, score: DreamScore | None, missing: list[str]) -> str:
    sections: list[Section] = []
    if run.scores:
        sections.append(scores_section(run, results.held_out, results.leaks))
        sections += baselines_section(run, find_baselines(run))
    sections += data_section(run, results)
    sections += [stage_section(run, stage) for stage in run.stages]
    if results.held_out is not None:
        sections += prediction_sections(run, results.held_out)
    if score is not None:
        sections.append(dream_section(score, run.name))
    sections.append(settings_section(run))
    return render_page(
        f"promoter-bert: run {run.name}",
        " ".join([run.state, *missing]),
        sections,
        f"Dataset {run.facts['dataset_key']}; shards {run.facts['shard_key'] or 'not used'}",
    )
