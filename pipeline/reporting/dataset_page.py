"""Write the page of dataset statistics: dataset.duckdb -> results of sql/queries -> tables and figures.

`promoter-bert query NAME` prints the same numbers.
"""

import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.dataset.database import DatasetInfo, dataset_info, open_dataset
from pipeline.dataset.query import Columns, answer
from pipeline.dataset.splits.split_leaks import SplitLeaks, recorded_leaks
from pipeline.dataset.threshold import ThresholdRows, count_threshold_rows
from pipeline.io.atomic import new_file
from pipeline.reporting import dataset_plots as plots
from pipeline.reporting.html import Section, Table, expect_page_name, render_page
from pipeline.reporting.svg import query_section
from pipeline.reporting.text import SHORT_KEY, format_percent, split_text, unit_text
from pipeline.runtime.text import format_count, name_sequences

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
KMERS_TEXT = (
    "The figure shows 5-base words (k-mers), computed from the data, not by the model. Strong promoters are those "
    "used for pretraining. Blue bars: the words most enriched in them. Orange bars: the most depleted. A value of "
    "1 means twice as frequent as in the other promoters, -1 half as frequent. Every occurrence is counted, but "
    "only on the strand that is stored. A binding site that works in both orientations appears as two words; one "
    "is the reverse complement of the other."
)
WITHOUT_LABELS = ("splits", "rejects_by_reason", "insert_lengths", "bases_by_position")


@dataclass(frozen=True)
class Stats:
    """The result of `write_stats`. bytes: size of the page."""

    page: str
    promoters: int
    bytes: int


def write_stats(
    dataset: Path | str, out: Path | str, step: Callable[[str], None] = lambda _: None, build_command: str = ""
) -> Stats:
    """Write the page of dataset statistics to `out`, an .html file.

    step: called with the name of each query before it runs, then "drawing", then "". build_command: builds the dataset;
    shown if there is none. The same dataset gives the same bytes. The file is written atomically. Raises UserError for
    a dataset that cannot be read and for an output that cannot be written.
    """
    out = Path(out)
    expect_page_name(out)
    with open_dataset(dataset, build_command=build_command) as connection:
        info, leaks = dataset_info(connection), recorded_leaks(connection)
        threshold = count_threshold_rows(connection, info)
        with new_file(out) as file:
            file.touch()  # fails before the work where the folder is read-only
            results = {}
            for name in QUERIES if info.cut is not None else WITHOUT_LABELS:
                step(name)
                results[name] = answer(connection, name)
            step("drawing")
            content = _page(info, threshold, leaks, results, dataset).encode()
            file.write_bytes(content)
            step("")
    return Stats(str(out), info.promoters, len(content))


def _page(
    info: DatasetInfo,
    threshold: ThresholdRows | None,
    leaks: SplitLeaks | None,
    results: dict[str, Columns],
    dataset: Path | str,
) -> str:
    name, option = info.sequence_name, f"--dataset {shlex.quote(str(dataset))}"
    sections = [
        _summary(info, threshold),
        _splits(info, leaks, results["splits"], option),
        _rejects(info, results["rejects_by_reason"]),
    ]
    if threshold is not None:
        sections += _label_figures(info, threshold, results)
    sections += _sequence_figures(results, name)
    if threshold is not None:
        sections += _effect_figures(results, name, info.unit)
    return render_page(
        "promoter-bert: the dataset",
        f"{format_count(info.promoters, name)} from {format_count(info.input_rows, 'input row')}. The small grey "
        f"line below each figure names the query behind it; promoter-bert query NAME {option} prints the numbers.",
        sections,
        f"Dataset {info.key}",
    )


def _summary(info: DatasetInfo, threshold: ThresholdRows | None) -> Section:
    name = info.sequence_name
    rows = [
        ("input rows", f"{info.input_rows:,}"),
        (f"{name}s", f"{info.promoters:,}"),
        ("rejected rows", f"{info.input_rows - info.promoters:,}"),
        ("pretraining threshold (expression)", "no expression" if info.cut is None else f"{info.cut:g}"),
        *([] if threshold is None else _threshold_rows(info, threshold)),
        ("split method", split_text(info.split, info.seed)),
        ("dataset key (checksum: equal keys mean equal data)", info.key[:SHORT_KEY]),
    ]
    return Section("Summary", "", [Table((), rows)], "select * from dataset")


def _threshold_rows(info: DatasetInfo, threshold: ThresholdRows) -> Iterator[tuple[str, str]]:
    """List the rows at or above the threshold; if some are held out of pretraining, also those that it uses."""
    name = info.sequence_name
    yield f"{name}s at or above the threshold", f"{threshold.above:,} ({_percent(threshold.above, info)})"
    if threshold.held_out:
        yield f"{name}s used for pretraining", f"{threshold.used:,} ({_percent(threshold.used, info)})"


def _percent(promoters: int, info: DatasetInfo) -> str:
    return format_percent(promoters / info.promoters)


def _splits(info: DatasetInfo, leaks: SplitLeaks | None, result: Columns, option: str) -> Section:
    rows = [
        (stage, split, f"{n:,}", *("" if value is None else f"{value:.3f}" for value in mean_and_sd))
        for stage, split, n, *mean_and_sd in zip(*result.values(), strict=True)
    ]
    heads = ("stage", "split", f"{info.sequence_name}s", "mean expression", "standard deviation of expression")
    tables = [Table(heads, rows, frozenset({2, 3, 4}))]
    if info.cut is not None and leaks is not None:
        tables.append(_leaks(leaks, option))
    return Section("Splits", _splits_text(info), tables, "sql/queries/splits.sql")


def _leaks(leaks: SplitLeaks, option: str) -> Table:
    counts = (
        ("have a near-duplicate in training, on either strand", leaks.near_duplicates),
        ("have their reverse complement in training", leaks.reverse_complements),
        ("share a run of 40 bases with a training row", leaks.shared_runs),
    )
    rows = [(what, f"not examined: promoter-bert leaks {option}" if n is None else f"{n:,}") for what, n in counts]
    return Table((f"of {format_count(leaks.held_out, 'held-out row')} of finetune", "rows"), rows, frozenset({1}))


def _splits_text(info: DatasetInfo) -> str:
    if info.cut is None:
        return (
            f"The {info.sequence_name}s have no measured expression. A trained model can predict it; training needs "
            "measurements."
        )
    method = (
        "The splits of a stage should have nearly the same mean expression, because rows were assigned to splits "
        "without regard to expression."
    )
    if info.split == "grouped":
        method += " Near-duplicates and reverse complements are always in the same split."
    if info.split == "column":
        method = "The input gives the splits of finetune, so their mean expression may differ."
    return name_sequences(
        "A model is trained in two stages: it learns the sequences of strong promoters (pretrain), then the expression "
        "of all promoters (finetune). With finetune.start=scratch, as in the presets for two CPU cores, there is no "
        "pretraining. In each stage, the model learns from the promoters of split train; those of valid and test are "
        f"kept apart for checking. {method}",
        info.sequence_name,
    )


def _rejects(info: DatasetInfo, result: Columns) -> Section:
    rejected, source = info.input_rows - info.promoters, "sql/queries/rejects_by_reason.sql"
    if not rejected:
        return Section("Rejected rows", "No row was rejected.", source=source)
    columns = zip(result["reason"], result["rows"], result["first_at"], strict=True)
    table = Table(
        ("reason", "rows", "first example (file:line)"),
        [(reason, f"{n:,}", first) for reason, n, first in columns],
        frozenset({1}),
    )
    text = (
        f"{format_count(rejected, 'row')} of {info.input_rows:,} ({format_percent(rejected / info.input_rows, 2)}) "
        "broke a rule of the format or the assay. If many rows have the same reason, check the input file and the "
        "assay settings."
    )
    return Section("Rejected rows", text, [table], source)


def _label_figures(info: DatasetInfo, threshold: ThresholdRows, results: dict[str, Columns]) -> Iterator[Section]:
    name = info.sequence_name
    yield query_section(
        "label_histogram",
        "Labels and the pretraining threshold",
        f"{name_sequences('A label is the measured expression of a promoter.', name)} {unit_text(info.unit)} "
        f"{threshold_text(threshold, name)} Each bar is one unit wide. A label on the edge between two bars is counted "
        "in the right-hand bar.",
        plots.label_histogram(results["label_histogram"], threshold.cut, name, info.unit),
        3.2,
    )
    yield query_section(
        "labels_by_split",
        "Labels in each fine-tuning split",
        "The lines of splits valid and test should follow the grey area of split train. Small splits differ more, by "
        "chance.",
        plots.labels_by_split(results["labels_by_split"], name, info.unit),
        3.2,
    )


def threshold_text(threshold: ThresholdRows, name: str) -> str:
    """Say from which promoters the pretraining threshold is taken, which of those above it are used, and which not.

    name: assay.name.
    """
    share = format_percent(threshold.top / max(threshold.candidates, 1))
    if not threshold.is_given:
        used = (
            f"The {format_count(threshold.used, name)} at or above the threshold of {threshold.cut:g} ({share}) "
            "are used for pretraining."
        )
        return f"{used} {_ties_text(threshold, name)}".rstrip()
    training = format_count(threshold.candidates, f"training {name}")
    validated = (
        f"validated on {threshold.used - threshold.top:,} validation {name}s above it"
        if threshold.used > threshold.top
        else f"validated on {threshold.valid:,} of them"
    )
    texts = [
        f"The pretraining threshold of {threshold.cut:g} is taken from the {training}.",
        f"{threshold.top:,} of them ({share}) are at or above it.",
        _ties_text(threshold, name),
        f"Pretraining uses these {threshold.top:,}, and is {validated}.",
        f"{format_count(threshold.held_out, f'other {name}')} at or above the threshold "
        f"{'is' if threshold.held_out == 1 else 'are'} held out of pretraining."
        if threshold.held_out
        else "",
    ]
    return " ".join(filter(None, texts))


def _ties_text(threshold: ThresholdRows, name: str) -> str:
    """Say that equal labels raise the share of pretraining above the requested one; empty if they do not."""
    if not threshold.extra_ties:
        return ""
    return (
        f"{format_percent(threshold.requested)} was requested; all {name}s with exactly the threshold as their label "
        f"are included ({threshold.extra_ties:,} more)."
    )


def _sequence_figures(results: dict[str, Columns], name: str) -> Iterator[Section]:
    lengths = results["insert_lengths"]
    share = max(lengths["share"])
    bases = lengths["bases"][lengths["share"].index(share)]
    others = (
        " If one length was ordered, the other lengths are probably errors of synthesis, cloning or sequencing. The "
        "vertical axis is logarithmic, so that rare lengths are visible."
    ) * (len(lengths["bases"]) > 1)
    yield query_section(
        "insert_lengths",
        "Insert lengths",
        f"{name_sequences('The insert is the variable part of a promoter, between the adapters.', name)} "
        f"{format_percent(share)} of the inserts are {format_count(bases, 'base')} long.{others}",
        plots.insert_lengths(lengths, name),
        2.8,
    )
    positions = results["bases_by_position"]
    inserts = format_count(max(positions["promoters"], default=0), "insert")
    yield query_section(
        "bases_by_position",
        "Bases by position",
        f"Each line is the share of one base among the {inserts} of the most common length "
        f"({format_count(len(positions['position']), 'base')}). Random sequences give flat lines. A step or a slope in "
        "random sequences suggests a bias of synthesis, cloning or sequencing. N is an unknown base.",
        plots.bases_by_position(positions),
        3.4,
    )


def _effect_figures(results: dict[str, Columns], name: str, unit: str) -> Iterator[Section]:
    yield query_section(
        "gc_against_expression",
        "GC content and expression",
        name_sequences(
            "Promoters are grouped by GC content (width 5 percentage points). The line is the mean expression of each "
            "group; the middle half of each group lies in the band. The wider the band, the less GC content explains. "
            "The bars show the number of promoters in each group; means of few promoters are uncertain.",
            name,
        ),
        plots.gc_against_expression(results["gc_against_expression"], name, unit),
        4.2,
    )
    yield query_section(
        "kmer_enrichment",
        f"k-mers of strong {name}s",
        name_sequences(KMERS_TEXT, name),
        plots.kmer_enrichment(results["kmer_enrichment"], name),
        5.0,
    )
