"""A dataset as one HTML page: dataset.duckdb -> the files of sql/queries -> tables and pictures.

The numbers are those that `promoter-bert query sql/queries/NAME.sql` prints.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.dataset.database import DatasetInfo, dataset_info, reading
from pipeline.dataset.query import Columns, answer
from pipeline.errors import UserError
from pipeline.io.atomic import expect_folder, new_file
from pipeline.reporting import dataset_plots as plots
from pipeline.reporting.html import Section, Table, page
from pipeline.reporting.svg import Draw, svg
from pipeline.runtime.text import counted

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
"""How often `write_stats` says what it does now: each query, and the drawing."""
WITHOUT_LABELS = ("splits", "rejects_by_reason", "insert_lengths", "bases_by_position")


@dataclass(frozen=True)
class Stats:
    """What `write_stats` made."""

    page: str
    promoters: int
    bytes: int


def write_stats(dataset: Path | str, out: Path | str, step: Callable[[str], None] = lambda _: None) -> Stats:
    """Write the page of a dataset to `out`, an .html file; `step` is told the name of each query before it runs,
    and "" at the end.

    The same dataset gives the same bytes. The page appears whole or not at all. Raises UserError for a dataset that is
    missing or none, and for a place that cannot be written to.
    """
    out = Path(out)
    if out.suffix not in (".html", ".htm"):
        raise UserError(f"{out}: expected a name ending in .html")
    expect_folder(out)
    with reading(dataset) as connection:
        info = dataset_info(connection)
        with new_file(out) as file:
            file.touch()  # a place that cannot be written to is noticed before the work
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
    return page(
        "promoter-bert: the dataset",
        f"{counted(info.promoters, 'promoter')}, of {counted(info.input_rows, 'row')} of input. Below each table and "
        "picture stands the query that it comes from; promoter-bert query FILE prints its numbers.",
        [
            _summary(info),
            _splits(results["splits"]),
            _rejects(info, results["rejects_by_reason"]),
            *_pictures(info, results),
        ],
        f"Dataset {info.key}",
    )


def _summary(info: DatasetInfo) -> Section:
    rows = [
        ("rows of input", f"{info.input_rows:,}"),
        ("promoters", f"{info.promoters:,}"),
        ("rejected", f"{info.input_rows - info.promoters:,}"),
        ("pretraining cut (expression)", "no labels" if info.cut is None else f"{info.cut:g}"),
        ("promoters at or above it", f"{info.pretrain_rows:,} ({info.pretrain_rows / info.promoters:.2%})"),
        ("splits", f"{info.split}, seed {info.seed}"),
        ("key", info.key),
    ]
    return Section("Summary", "What was built, and from how much.", Table((), rows), "select * from dataset")


def _splits(found: Columns) -> Section:
    rows = [
        (stage, split, f"{n:,}", _number(mean), _number(sd))
        for stage, split, n, mean, sd in zip(*found.values(), strict=True)
    ]
    return Section(
        "Splits",
        "The means within a stage should be near each other: splits are drawn by a hash of the sequences, whatever "
        "their labels (where they are grouped, families of near-duplicates as a whole).",
        Table(("stage", "split", "promoters", "mean expression", "standard deviation"), rows, frozenset({2, 3, 4})),
        "sql/queries/splits.sql",
    )


def _rejects(info: DatasetInfo, found: Columns) -> Section:
    rejected = info.input_rows - info.promoters
    says = (
        f"{rejected:,} rows ({rejected / info.input_rows:.2%}) could not be used. A reason that many rows share points "
        "at the file or at the assay's settings, not at single rows."
        if rejected
        else "Every row could be used."
    )
    rows = [
        (reason, f"{n:,}", place)
        for reason, n, place in zip(found["reason"], found["rows"], found["first_at"], strict=True)
    ]
    table = Table(("reason", "rows", "first at"), rows or [("none", "0", "")], frozenset({1}))
    return Section("Rejects by reason", says, table, "sql/queries/rejects_by_reason.sql")


def _pictures(info: DatasetInfo, results: dict[str, Columns]) -> Iterator[Section]:
    if info.cut is not None:
        yield from _label_pictures(info, info.cut, results)
    yield from _sequence_pictures(results)
    if info.cut is not None:
        yield from _effect_pictures(results)


def _label_pictures(info: DatasetInfo, cut: float, results: dict[str, Columns]) -> Iterator[Section]:
    yield _picture(
        "label_histogram",
        "Labels and the cut",
        f"{info.pretrain_rows / info.promoters:.1%} of the promoters lie at or above the cut of {cut:g} and are "
        f"pretrained on. {info.top_fraction:.1%} were asked for; what is more comes from ties at the cut, which are "
        "all in. A bar at 11 holds labels from 11 up to 12.",
        3.2,
        plots.label_histogram(results["label_histogram"], cut),
    )
    yield _picture(
        "labels_by_split",
        "Labels in each fine-tuning split",
        "The splits should look alike: valid and test follow the grey shape of train, but for chance, which shows most "
        "where a split is small.",
        3.2,
        plots.labels_by_split(results["labels_by_split"]),
    )


def _sequence_pictures(results: dict[str, Columns]) -> Iterator[Section]:
    lengths = results["insert_lengths"]
    share, bases = max(zip(lengths["share"], lengths["bases"], strict=True), key=lambda pair: pair[0])
    yield _picture(
        "insert_lengths",
        "Insert lengths",
        f"{share:.1%} of the inserts are {bases} bases long. Where one length was ordered, the others are errors of "
        "synthesis. The scale is logarithmic, so that rare ones are seen.",
        2.8,
        plots.insert_lengths(lengths),
    )
    positions = results["bases_by_position"]
    yield _picture(
        "bases_by_position",
        "Bases by position",
        f"Flat lines are what random synthesis gives; a step or slope is a bias of synthesis or sequencing. Over the "
        f"{max(positions['promoters'], default=0):,} inserts of the most common length, {len(positions['position'])} "
        "bases; N is a base that could not be read.",
        3.4,
        plots.bases_by_position(positions),
    )


def _effect_pictures(results: dict[str, Columns]) -> Iterator[Section]:
    yield _picture(
        "gc_against_expression",
        "GC content and expression",
        "The slope is what base composition alone tells of expression; the band, how much it leaves open. Where the "
        "lower bars are short, few promoters stand behind a point.",
        4.2,
        plots.gc_against_expression(results["gc_against_expression"]),
    )
    yield _picture(
        "kmer_enrichment",
        "k-mers of strong promoters",
        "Of all k-mers, those most over-represented among the promoters at or above the cut (blue, to the right) and "
        "most under-represented (orange, to the left): 1 is twice, -1 half as frequent as among the rest. A site that "
        "works either way round shows up with its reverse complement.",
        5.0,
        plots.kmer_enrichment(results["kmer_enrichment"]),
    )


def _picture(name: str, heading: str, says: str, height: float, draw: Draw) -> Section:
    return Section(heading, says, svg(name, heading, height, draw), f"sql/queries/{name}.sql")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
