"""Describe the results of the data commands in lines of text."""

import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pipeline.config.schema import SEQUENCE_NAME
from pipeline.reporting.text import MOST_LEAKS, count_leaks
from pipeline.runtime.text import format_count

if TYPE_CHECKING:
    from pipeline.dataset.database import DatasetInfo
    from pipeline.dataset.results import BuildResult
    from pipeline.dataset.splits.split_leaks import SplitLeaks
    from pipeline.shards.index import Index
    from pipeline.shards.preview import PreviewRow
    from pipeline.shards.write import WriteResult


def describe_build(built: "BuildResult") -> list[str]:
    """Describe a dataset: its sizes, the rows rejected or repaired, and notes for its user."""
    info = built.info
    reused = " (already built from these files and settings: nothing to do)" if built.reused else ""
    return [
        f"{built.dataset}: {format_count(info.promoters, info.sequence_name)} of "
        f"{format_count(info.input_rows, 'row')}; Parquet in {built.parquet}{reused}",
        *_columns(built),
        *_kept(built),
        *(_layout(built.layout, len(built.labels), info.cut is not None) if built.layout else ()),
        *_splits(built),
        *_leaks(built),
        *_lengths(built),
        *(f"repaired   {count:,}: assay.{rule}" for rule, count in built.repairs.items()),
        *_rejects(built),
        *_notes(built),
    ]


def _columns(built: "BuildResult") -> Iterator[str]:
    """Describe the columns of sequences and labels, by the rows that became promoters."""
    yield f"sequences: {column_of_sequences(built.sequence_column, built.sequence_lengths)}"
    if built.label_range is None:
        promoters = format_count(built.info.promoters, built.info.sequence_name)
        yield f"labels: none; for predictions only: {promoters}, all test rows of finetune"
        return
    if len(built.labels) > 1:
        yield from _labels(built.labels)
    else:
        low, high = built.label_range
        kept = " in the rows that are kept" if built.notes.out_of_range else ""
        yield f"labels: {column_title(built.label_column)} ({low:g} … {high:g}{kept})"
        if numbers := built.notes.numbers:
            yield f"           other columns of numbers: {', '.join(numbers)}; to take one: --expression-column NAME"
        if low == high:
            yield f"warning    all labels are {low:g}: there is nothing to learn from them"


def _labels(labels: list[dict[str, Any]]) -> Iterator[str]:
    """Describe several labels."""
    for label in labels:
        missing = f", {label['missing']:,} missing" if label["missing"] else ""
        span = f"{label['low']:g} … {label['high']:g}" if label["count"] else "none"
        yield f"labels: {label['name']!r} ({span}; {format_count(label['count'], 'value')}{missing})"
        if label["low"] == label["high"]:
            yield f"warning    label {label['name']!r} has one value or none: there is nothing to learn from it"


def _kept(built: "BuildResult") -> Iterator[str]:
    """Describe the sequences that were joined by name, the columns that were kept, and those that were renamed."""
    if built.designs is not None:
        yield (
            f"joined     {format_count(built.designs.sequences, 'sequence')} by name; "
            f"{built.designs.without_row:,} of them have no row"
        )
    if built.kept_columns:
        yield f"kept       {', '.join(built.kept_columns)}: columns of promoters and of the Parquet files"
    for name, new in built.renamed_columns.items():
        yield f"renamed    {name!r} to {new!r}: the name is taken"


def _lengths(built: "BuildResult") -> Iterator[str]:
    """Note few inserts that are much shorter or longer than the others."""
    notes, half, twice = built.notes, built.notes.shortest_usual, 2 * built.notes.median_insert
    for count, problem, setting in (
        (notes.short_inserts, f"shorter than half the median of {notes.median_insert} bases", f"min_insert={half}"),
        (notes.long_inserts, f"longer than twice the median of {notes.median_insert} bases", f"max_insert={twice}"),
    ):
        if count:
            inserts = f"{format_count(count, 'insert')} {'is' if count == 1 else 'are'}"
            yield f"note       {inserts} {problem}; fix, if they are errors: assay.{setting}"


def _rejects(built: "BuildResult") -> Iterator[str]:
    """Describe the rejects by reason: an example, what would repair them, and the query that lists them."""
    for reason, count in built.rejects.items():
        hint, example = built.hints.get(reason, ""), built.notes.examples.get(reason, "")
        such_as = f", such as {example}" if example else ""
        below, above = built.notes.out_of_range.get(reason, (0, 0))
        if below or above:
            such_as += (
                f"; {below:,} below the range, {above:,} above it{' of the first rows' * (below + above < count)}"
            )
        if reason in built.notes.codes:
            value, rows = built.notes.codes[reason]
            verb = f"{format_count(rows, 'row')} have {value:g}: a code for missing values?"
            hint = f"{verb} To accept all of these rows: {hint}" if hint else verb
        elif hint:
            hint = f"to repair: {hint}"
        yield f"rejected   {count:,}: {reason}{such_as}{f' ({hint})' if hint else ''}"
    if built.rejects:
        query = 'promoter-bert query "select * from rejects limit 20"'
        yield f"           list them: {query} --dataset {shlex.quote(built.dataset)}"


def column_of_sequences(column: str | None, lengths: tuple[int, int]) -> str:
    """Describe the column of sequences and their lengths: 'seq' (80 … 110 bases)."""
    shortest, longest = lengths
    bases = format_count(longest, "base") if shortest == longest else f"{shortest:,} … {longest:,} bases"
    return f"{column_title(column)} ({bases})"


def column_title(column: str | None) -> str:
    """Name a column in quotes, or by its number; FASTA has none for sequences."""
    if column is None:
        return "FASTA entries"
    return f"column {column}" if column.isdecimal() else repr(column)


def _splits(built: "BuildResult") -> list[str]:
    threshold = built.threshold
    if threshold is None:
        return []
    rows = built.info.split_rows
    source = f", taken from {threshold.candidates:,} training rows" if threshold.is_given else ""
    held_out = f"; {threshold.held_out:,} other rows above it are held out" if threshold.held_out else ""
    return [
        f"pretrain   {threshold.used:,} rows at or above the threshold of {threshold.cut:g}{source}: "
        f"train {rows['pretrain/train']:,}, valid {rows['pretrain/valid']:,}{held_out}",
        f"finetune   train {rows['finetune/train']:,}, valid {rows['finetune/valid']:,}, "
        f"test {rows['finetune/test']:,}",
    ]


def _layout(layout: dict[str, Any], labels: int, labelled: bool) -> Iterator[str]:
    """Describe the columns that were read, if the file has several candidates, and the lines before the first row."""
    if layout["kind"] == "text" and (layout["skip_lines"] or layout["columns"] > 2):
        header = "a header line and " if layout["skip_lines"] else ""
        first = "the first label" if labels > 1 else "labels"
        found = f"{first} in column {layout['expression_field']}" if labelled else "no labels"
        yield f"read       {header}{layout['columns']} columns: sequences in column {layout['sequence_field']}, {found}"
    if layout["row_names"]:
        yield "read       column 1 as row names, as R writes them: the header line has no name for it"
    if layout["comment_lines"]:
        yield f"skipped    {format_count(layout['comment_lines'], 'comment line')} before the first row"


def _notes(built: "BuildResult") -> Iterator[str]:
    info = built.info
    if info.random_split_leaks is not None:
        yield (
            f"grouped    no held-out row has a near-duplicate in training; with a random split "
            f"{format_count(info.random_split_leaks, 'held-out row')} would"
        )
    cluster = built.largest_cluster
    if cluster is not None and 2 * cluster.rows > info.promoters:
        yield (
            f"warning    the largest cluster holds more than half of the {info.sequence_name}s: {cluster.describe()}; "
            "it is in training as a whole"
        )
    if built.repeated_held_out:
        yield (
            f"warning    {format_count(built.repeated_held_out, 'held-out row')} of the given splits: the sequence is "
            "also in training; kept as given"
        )
    if built.held_out_pretrained:
        yield (
            f"note       pretraining sees {format_count(built.held_out_pretrained, info.sequence_name)} held out from "
            "fine-tuning (without labels); to keep them out, raise dataset.pretrain_valid"
        )
    # build itself refuses an empty pretrain/train, and training does not need finetune/test.
    needed = () if info.cut is None else ("pretrain/valid", "finetune/train", "finetune/valid")
    empty = [split for split in needed if not info.split_rows[split]]
    if empty:
        larger = " ".join(f"dataset.{_size_setting(info, split)}={_larger_size(info, split)}" for split in empty)
        verb = "has" if len(empty) == 1 else "have"
        yield f"note       {', '.join(empty)} {verb} no rows, which train.py needs; build again with {larger}"
    if built.runs_left_out:
        yield (
            f"note       {format_count(built.runs_left_out, 'run')} of the dataset replaced here had other rows or "
            "splits, so relation runs does not list them; their run directories are kept"
        )


def _size_setting(info: "DatasetInfo", split: str) -> str:
    """Name the setting of the size of a split. A given split gets validation rows from training rows only."""
    return "valid_from_train" if (info.split, split) == ("column", "finetune/valid") else split.replace("/", "_")


def _larger_size(info: "DatasetInfo", split: str) -> str:
    """Suggest a size that gives a split at least one row."""
    rows = info.pretrain_rows if split.startswith("pretrain") else info.promoters
    return "0.1" if rows >= 10 else "1"


def describe_replacement(folder: str, index: "Index", reasons: list[str], name: str = SEQUENCE_NAME) -> str:
    """Describe the shards that are about to be replaced, and why. name: assay.name."""
    records = sum(len(shard.records) for shard in index.shards)
    rows = sum(shard.rows for shard in index.shards)
    return (
        f"{folder}: replacing {format_count(len(index.shards), 'shard')} of k = {index.k} "
        f"({format_count(records, 'record')}, {format_count(rows, name)}); changed: {'; '.join(reasons)}"
    )


def _leaks(built: "BuildResult") -> Iterator[str]:
    if built.info.cut is not None and built.leaks is not None:
        yield f"held out   {describe_leaks(built.leaks, built.dataset)}"
        if fix := fix_of_leaks(built.leaks, built.info.split):
            yield f"warning    the scores of held-out rows may be too high; to keep such rows in one split: {fix}"


def fix_of_leaks(leaks: "SplitLeaks", split: str) -> str:
    """Return the overrides that keep rows which resemble each other in one split; an empty text for few such rows.

    split: dataset.split. Given splits are as the user chose them.
    """
    most = MOST_LEAKS * leaks.held_out
    if split == "column":
        return ""
    overlap = ["dataset.group_overlap=40"] * ((leaks.shared_runs or 0) > most)
    alike = max(leaks.near_duplicates or 0, leaks.reverse_complements or 0) > most
    return " ".join(["dataset.split=grouped"] * (split != "grouped") + overlap) if alike or overlap else ""


def describe_leaks(leaks: "SplitLeaks", dataset: str) -> str:
    """Describe what held-out rows have in common with training rows, and what was not examined."""
    counts = count_leaks(leaks)
    examined = ", ".join(f"{count:,} {what}" for what, count in counts.items() if count is not None)
    names = ("near-duplicates", "reverse complements", "shared runs of 40 bases")
    missing = ", ".join(name for name, count in zip(names, counts.values(), strict=True) if count is None)
    parts = []
    if examined:
        parts.append(f"of {format_count(leaks.held_out, 'row')}, {examined}")
    if missing:
        parts.append(f"not examined: {missing} in training; to examine: promoter-bert leaks --dataset {dataset}")
    return "; ".join(parts)


def describe_shards(written: "WriteResult", name: str = SEQUENCE_NAME) -> list[str]:
    """Describe the shards of one k: what was replaced and what was written. name: assay.name."""
    present = f"all present; promoter-bert verify {shlex.quote(written.folder)} reads every byte of them"
    state = f"{written.written:,} written now" if written.written else present
    return [
        *(f"replaced stale shards ({difference})" for difference in written.replaced),
        f"{written.folder}: {format_count(written.shards, 'shard')} ({state}), {format_count(written.rows, name)}"
        f", {written.bytes / 1e6:,.1f} MB",
        *([f"note: {written.note}"] if written.note else []),
    ]


def describe_preview(promoter: "PreviewRow", index: "Index") -> list[str]:
    """Describe a promoter of a shard: its place, bases and first tokens."""
    from pipeline.shards.preview import format_insert

    label = _describe_labels(promoter.expression)
    return [
        f"{promoter.file} record {promoter.record}, id {promoter.id}, {label}",
        f"  {format_insert(promoter, index)}",
        f"  tokens {' '.join(map(str, promoter.tokens))} ...",
    ]


def _describe_labels(labels: float | dict[str, float | None] | None) -> str:
    """Describe the label of a promoter, or its several labels by name; None for a missing one."""
    if isinstance(labels, dict):
        return ", ".join(f"{name} {'missing' if value is None else f'{value:g}'}" for name, value in labels.items())
    return "no label" if labels is None else f"expression {labels:g}"
