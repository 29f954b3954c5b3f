"""Write the page of dataset statistics: dataset.duckdb -> results of sql/queries -> tables and figures.

`promoter-bert query sql/queries/NAME.sql` prints the same numbers.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.dataset.database import DatasetInfo, dataset_info, open_dataset
from pipeline.dataset.query import Columns, answer
from pipeline.io.atomic import new_file
from pipeline.reporting import dataset_plots as plots
from pipeline.reporting.html import Section, Table, expect_page_name, render_page
from pipeline.reporting.svg import query_section
from pipeline.runtime.text import format_count

QUERIES = (
    "splits",
    "rejects_by_reason",
    "label_histogram",
    "labels_by_split",
    "insert_lengths",
    "gc_against_expression",
    "bases_by_position",
    "kmer_enrichment",
)
STEPS = len(QUERIES) + 1
"""Steps that `write_stats` reports: each query, and the drawing."""
WITHOUT_LABELS = ("splits", "rejects_by_reason", "insert_lengths", "bases_by_position")


@dataclass(frozen=True)
class Stats:
    """The result of `write_stats`. bytes: size of the page."""

    page: str
    promoters: int
    bytes: int


def write_stats(dataset: Path | str, out: Path | str, step: Callable[[str], None] = lambda _: None) -> Stats:
    """Write the page of dataset statistics to `out`, an .html file.

    step: called with the name of each query before it runs, then "drawing", then "". The same dataset gives the same
    bytes. The file is written atomically. Raises UserError for a dataset that cannot be read and for an output that
    cannot be written.
    """
    out = Path(out)
    expect_page_name(out)
    with open_dataset(dataset) as connection:
        info = dataset_info(connection)
        with new_file(out) as file:
            file.touch()  # fails before the work where the folder is read-only
            results = {}
            for name in QUERIES if info.cut is not None else WITHOUT_LABELS:
                step(name)
                results[name] = answer(connection, name)
            step("drawing")
            content = _page(info, results).encode()
            file.write_bytes(content)
            step("")
    return Stats(str(out), info.promoters, len(content))


def _page(info: DatasetInfo, results: dict[str, Columns]) -> str:
    sections = [_summary(info), _splits(results["splits"]), _rejects(info, results["rejects_by_reason"])]
    if info.cut is not None:
        sections += _label_figures(info, info.cut, results)
    sections += _sequence_figures(results)
    if info.cut is not None:
        sections += _effect_figures(results)
    return render_page(
        "promoter-bert: the dataset",
        f"{format_count(info.promoters, 'promoter')} from {format_count(info.input_rows, 'input row')}. The file below "
        "each table or figure is its query; promoter-bert query FILE prints the numbers.",
        sections,
        f"Dataset {info.key}",
    )


def _summary(info: DatasetInfo) -> Section:
    rows = [
        ("input rows", f"{info.input_rows:,}"),
        ("promoters", f"{info.promoters:,}"),
        ("rejected rows", f"{info.input_rows - info.promoters:,}"),
        ("pretraining threshold (expression)", "no labels" if info.cut is None else f"{info.cut:g}"),
        ("promoters at or above the threshold", f"{info.pretrain_rows:,} ({info.pretrain_rows / info.promoters:.2%})"),
        ("split method", f"{info.split}, seed {info.seed}"),
        ("dataset key", info.key),
    ]
    return Section("Summary", "", [Table((), rows)], "select * from dataset")


def _splits(result: Columns) -> Section:
    rows = [
        (stage, split, f"{n:,}", *("" if value is None else f"{value:.3f}" for value in mean_and_sd))
        for stage, split, n, *mean_and_sd in zip(*result.values(), strict=True)
    ]
    return Section(
        "Splits",
        "Stage finetune uses all promoters, stage pretrain only strong ones. In each stage, the model learns from the "
        "training split (train); valid and test are held out. The mean expression should be nearly the same in all "
        "splits of a stage: splits do not depend on labels. A grouped split also keeps near-duplicates together.",
        [Table(("stage", "split", "promoters", "mean expression", "standard deviation"), rows, frozenset({2, 3, 4}))],
        "sql/queries/splits.sql",
    )


def _rejects(info: DatasetInfo, result: Columns) -> Section:
    rejected = info.input_rows - info.promoters
    text = (
        f"{rejected:,} rows ({rejected / info.input_rows:.2%}) were rejected. If many rows share a reason, check the "
        "input file and the assay settings."
        if rejected
        else "No row was rejected."
    )
    columns = zip(result["reason"], result["rows"], result["first_at"], strict=True)
    rows = [(reason, f"{n:,}", first) for reason, n, first in columns] or [("none", "0", "")]
    table = Table(("reason", "rows", "first at"), rows, frozenset({1}))
    return Section("Rejects by reason", text, [table], "sql/queries/rejects_by_reason.sql")


def _label_figures(info: DatasetInfo, cut: float, results: dict[str, Columns]) -> Iterator[Section]:
    yield query_section(
        "label_histogram",
        "Labels and the pretraining threshold",
        f"A label is a measured expression. {info.pretrain_rows / info.promoters:.1%} of the promoters have a label of "
        f"{cut:g} (the threshold) or more and are used for pretraining. The setting was the top "
        f"{info.top_fraction:.1%}; all promoters with a label equal to the threshold are included. Each bar is one "
        "unit wide. A label on the edge of two bars is counted in the right one.",
        plots.label_histogram(results["label_histogram"], cut),
        3.2,
    )
    yield query_section(
        "labels_by_split",
        "Labels in each fine-tuning split",
        "The lines of the validation and test splits should follow the grey area of the training split. Small splits "
        "differ more, by chance.",
        plots.labels_by_split(results["labels_by_split"]),
        3.2,
    )


def _sequence_figures(results: dict[str, Columns]) -> Iterator[Section]:
    lengths = results["insert_lengths"]
    share = max(lengths["share"])
    bases = lengths["bases"][lengths["share"].index(share)]
    yield query_section(
        "insert_lengths",
        "Insert lengths",
        f"The insert is the variable part of a promoter, between the adapters. {share:.1%} of the inserts are {bases} "
        "bases long. If one length was ordered, the other lengths are synthesis errors. The vertical scale is "
        "logarithmic, so rare lengths are visible.",
        plots.insert_lengths(lengths),
        2.8,
    )
    positions = results["bases_by_position"]
    yield query_section(
        "bases_by_position",
        "Bases by position",
        "Each line is the share of one base among all inserts. Random synthesis gives flat lines. A step or a slope is "
        "a bias of synthesis or sequencing. The figure covers "
        f"the {format_count(max(positions['promoters'], default=0), 'insert')} of the most common length, "
        f"{len(positions['position'])} bases. N is an unknown base.",
        plots.bases_by_position(positions),
        3.4,
    )


def _effect_figures(results: dict[str, Columns]) -> Iterator[Section]:
    yield query_section(
        "gc_against_expression",
        "GC content and expression",
        "The line is the mean expression of promoters with similar GC content, in steps of 5 %. Half of the promoters "
        "of a step lie in the band: a wide band means that GC content explains little. The bars show the number of "
        "promoters of each step; means of few promoters are uncertain.",
        plots.gc_against_expression(results["gc_against_expression"]),
        4.2,
    )
    yield query_section(
        "kmer_enrichment",
        "k-mers of strong promoters",
        "The 5-mers that are most enriched (blue) and most depleted (orange) in strong promoters, which are those used "
        "for pretraining. A value of 1 means twice as frequent as in the other promoters, -1 half as frequent. A "
        "binding site that works in both orientations appears together with its reverse complement.",
        plots.kmer_enrichment(results["kmer_enrichment"]),
        5.0,
    )
