"""Tests of the differences between runs: paired bootstrap on the held-out promoters that two runs share."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from model.runs.read import RunFiles, held_out_split
from model.scoring.paired_bootstrap import Difference, PairedDifferences, compare_correlations
from pipeline.dataset.database import open_dataset_of_key
from pipeline.dataset.query import add_missing_relations
from pipeline.errors import UserError
from pipeline.reporting.html import Section, Table

MEASURED = """
select held_out.label, id, prediction, expression
from held_out join measurements using (id)
where held_out.label is not distinct from measurements.label
order by held_out.label, id
"""
"""Predictions of a run and the measurements in its dataset, in an order that does not depend on the run."""
EXPLANATION = (
    "Each run is compared with the first one, {reference}, on the same held-out rows. The difference is the "
    "correlation of the run minus that of {reference}. In parentheses: its 95 % confidence interval. Interval and p "
    "come from a paired bootstrap: rows are drawn with replacement, and both runs are scored on the same draw. p is "
    "two-sided, and not corrected for the number of tests. These tests cover the choice of held-out rows, but not the "
    "seeds of a training."
)
HEADING = "Differences of the scores"
HEADS = ("run", "rows", "Pearson: difference", "p", "Spearman: difference", "p")


@dataclass(frozen=True)
class PairedTest(PairedDifferences):
    """Test of a run against the reference, the first run. split: of the rows; label: of several, else None."""

    run: str
    reference: str
    split: str
    label: str | None


def compare_pairs(runs: Sequence[tuple[str, RunFiles]]) -> tuple[list[PairedTest], list[str]]:
    """Test each run against the first one, per label. runs: name and files of each.

    Returns the tests, and one line per pair of runs without a test. Runs of another dataset are tested if both datasets
    hold the same ids and measurements.
    """
    tables: dict[str, pa.Table | str] = {}
    splits = {name: held_out_split(files.scores) or "" for name, files in runs}
    (reference, _), *others = runs
    tests, problems = [], []
    for name, _ in others:
        pair = {each: files for each, files in runs if each in (reference, name)}
        for each, files in pair.items():
            if each not in tables:
                tables[each] = _read_rows(files, splits[each], [files for _, files in runs])
        first, second = tables[name], tables[reference]
        problem = next((f"{each}: {table}" for each in pair if isinstance(table := tables[each], str)), "")
        if isinstance(first, pa.Table) and isinstance(second, pa.Table):
            if splits[name] == splits[reference] and _are_same_rows(first, second):
                tests += _test_labels(first, second, (name, reference, splits[name]))
                continue
            problem = "they were scored on different rows"
        problems.append(f"{name} and {reference} were not tested against each other: {problem}")
    return tests, problems


def _read_rows(files: RunFiles, split: str, runs: Sequence[RunFiles]) -> pa.Table | str:
    """Read the rows of a run with their measurements, or return why there are none. runs: may have the same dataset."""
    if files.summary is None:
        return "it is not finished"
    predictions = files.predictions()
    if predictions is None:
        return "it has no held-out predictions"
    predictions = predictions.filter(pc.equal(predictions["split"], split))
    key = files.facts["dataset_key"]
    places = [place for run in (files, *runs) if run.facts["dataset_key"] == key for place in run.dataset_candidates]
    try:
        with open_dataset_of_key(dict.fromkeys(places), key) as connection:
            if connection is None:
                return f"its dataset is not at {' or '.join(map(str, files.dataset_candidates))}"
            add_missing_relations(connection)
            connection.register("held_out", predictions)
            return connection.sql(MEASURED).to_arrow_table()
    except UserError as error:
        return str(error)


def _are_same_rows(first: pa.Table, second: pa.Table) -> bool:
    """Return whether two runs have the same ids and labels, with the same measurements."""
    return all(first[name].equals(second[name]) for name in ("id", "label", "expression"))


def _test_labels(first: pa.Table, second: pa.Table, names: tuple[str, str, str]) -> list[PairedTest]:
    """Test two runs per label. names: run, reference and split."""
    labels = first["label"].to_pylist()
    tests = []
    for label in dict.fromkeys(labels):
        rows = np.array([each == label for each in labels])
        x, other, y = (
            table[column].to_numpy()[rows]
            for table, column in ((first, "prediction"), (second, "prediction"), (first, "expression"))
        )
        differences = vars(compare_correlations(x, other, y))
        run, reference, split = names
        tests.append(PairedTest(**differences, run=run, reference=reference, split=split, label=label))
    return tests


def tests_section(tests: Sequence[PairedTest], problems: Sequence[str]) -> Section:
    """Show the tests as a table, and the pairs without a test."""
    rows = [
        [
            test.run if test.label is None else f"{test.run}: {test.label}",
            f"{test.rows:,} ({test.split})",
            *_cells(test.pearson, test),
            *_cells(test.spearman, test),
        ]
        for test in tests
    ]
    table = Table(HEADS, rows, frozenset(range(1, len(HEADS))))
    text = " ".join(f"{problem}." for problem in problems)
    if not tests:
        return Section(HEADING, text)
    resolution = f"{tests[0].resamples:,} resamples show no p below {tests[0].smallest_p:.2g}."
    text = f"{EXPLANATION.format(reference=tests[0].reference)} {resolution}\n\n{text}".strip()
    return Section(HEADING, text, [table])


def _cells(difference: Difference, test: PairedTest) -> tuple[str, str]:
    return difference_text(difference), p_text(difference.p_value, test.smallest_p)


def difference_text(difference: Difference) -> str:
    """Format a difference of correlations with its interval."""
    low, high = difference.interval
    return f"{difference.value:+.4f} ({low:+.4f} to {high:+.4f})"


def p_text(p_value: float, smallest: float) -> str:
    """Format a p-value. At the resolution of the resamples it is an upper limit."""
    return f"at most {smallest:.2g}" if p_value <= smallest else f"{p_value:.2g}"


def describe_tests(tests: Sequence[PairedTest], problems: Sequence[str]) -> list[str]:
    """Format the tests for a terminal, one line per run, label and score, and the pairs without a test."""
    lines = []
    for test in tests:
        label = f", {test.label}" if test.label else ""
        for name, difference in (("Pearson", test.pearson), ("Spearman", test.spearman)):
            p = p_text(difference.p_value, test.smallest_p)
            lines.append(f"  {test.run} minus {test.reference}{label}: {name} {difference_text(difference)}, p {p}")
    if tests:
        lines.append(
            f"(paired bootstrap on the same {tests[0].split} rows, {tests[0].resamples:,} resamples; p is two-sided)"
        )
    return [*lines, *(f"note: {problem}" for problem in problems)]
