"""What the data commands print of their results."""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pipeline.dataset.input.repairs import repair_of
from pipeline.runtime.text import counted

if TYPE_CHECKING:
    from pipeline.dataset.build_result import BuildResult
    from pipeline.dataset.database import DatasetInfo
    from pipeline.shards.index import Index
    from pipeline.shards.preview import PreviewRow
    from pipeline.shards.write import WriteResult


def describe_built(built: "BuildResult") -> list[str]:
    """Describe a dataset: its sizes, the rows rejected or repaired, and notes for its user."""
    info = built.info
    reused = " (already built from these files and settings: nothing to do)" if built.was_there else ""
    return [
        f"{built.dataset}: {counted(info.promoters, 'promoter')} of {counted(info.input_rows, 'row')}; "
        f"Parquet in {built.parquet}{reused}",
        *_splits(info),
        *(f"repaired   {count:,}: assay.{rule}" for rule, count in built.repairs.items()),
        *_rejects(built),
        *_layout(built),
        *_notes(built),
    ]


def _splits(info: "DatasetInfo") -> list[str]:
    if info.cut is None:
        return [f"no labels  for predictions only: all {info.promoters:,} promoters are test rows of finetune"]
    return [
        f"pretrain   {info.pretrain_rows:,} rows at or above the cut of {info.cut:g}: "
        f"train {info.pretrain_rows - info.pretrain_valid_rows:,}, valid {info.pretrain_valid_rows:,}",
        f"finetune   train {info.finetune_train_rows:,}, valid {info.finetune_valid_rows:,}, "
        f"test {info.finetune_test_rows:,}",
    ]


def _rejects(built: "BuildResult") -> Iterator[str]:
    assay = json.loads(built.info.settings)["assay"] if built.info.settings else {}
    for reason, count in built.rejects.items():
        repair = repair_of(reason, assay) if assay else ""
        yield f"rejected   {count:,}: {reason}{f' (to repair: {repair})' if repair else ''}"


def _layout(built: "BuildResult") -> Iterator[str]:
    """The columns that were read, where there was a choice."""
    layout = built.layout
    if layout is None:
        return
    if layout["kind"] == "fasta" and built.info.cut is not None:
        yield "read       FASTA: labels from the last word of each header"
    elif layout["skip_lines"] or layout["columns"] > 2:
        header = "a header line and " if layout["skip_lines"] else ""
        labels = f"labels in column {layout['expression_field']}" if layout["expression_field"] else "no labels"
        yield (
            f"read       {header}{layout['columns']} columns: sequences in column {layout['sequence_field']}, {labels}"
        )


def _notes(built: "BuildResult") -> Iterator[str]:
    info = built.info
    if info.random_split_leaks is not None:
        yield (
            f"grouped    no held-out row has a near-duplicate in training; with a random split "
            f"{counted(info.random_split_leaks, 'held-out row')} would"
        )
    if built.held_out_pretrained:
        yield (
            f"note       pretraining sees {counted(built.held_out_pretrained, 'promoter')} held out from fine-tuning "
            "(without labels); to keep them out, raise dataset.pretrain_valid"
        )
    empty = [] if info.cut is None else _empty_splits(info)
    if empty:
        larger = " ".join(f"dataset.{split.replace('/', '_')}=0.1" for split in empty)
        verb = "has" if len(empty) == 1 else "have"
        yield f"note       {', '.join(empty)} {verb} no rows, which train.py needs; build again with {larger}"
    if built.runs_left_out:
        yield (
            f"note       {counted(built.runs_left_out, 'run')} of the dataset replaced here had other rows or splits, "
            "so relation runs does not list them; their run directories are kept"
        )


def _empty_splits(info: "DatasetInfo") -> list[str]:
    """Splits without rows that training needs; `build` itself refuses an empty pretrain/train."""
    rows = {
        "pretrain/valid": info.pretrain_valid_rows,
        "finetune/train": info.finetune_train_rows,
        "finetune/valid": info.finetune_valid_rows,
    }
    return [split for split, count in rows.items() if not count]


def describe_written(written: "WriteResult") -> list[str]:
    """Describe the shards of one k: what was replaced and what was written."""
    present = "all present; promoter-bert verify reads every byte of them"
    state = f"{written.written:,} written now" if written.written else present
    return [
        *(f"replaced stale shards ({difference})" for difference in written.replaced),
        f"{written.folder}: {counted(written.shards, 'shard')} ({state}), {counted(written.rows, 'promoter')}, "
        f"{written.bytes / 1e6:,.1f} MB",
        *([f"note: {written.note}"] if written.note else []),
    ]


def describe_shown(promoter: "PreviewRow", index: "Index") -> list[str]:
    """Describe a promoter of a shard: its place, bases and first tokens."""
    from pipeline.shards.preview import format_insert

    label = "no label" if promoter.expression is None else f"expression {promoter.expression:g}"
    return [
        f"{promoter.file} record {promoter.record}, id {promoter.id}, {label}",
        f"  {format_insert(promoter, index)}",
        f"  tokens {' '.join(map(str, promoter.tokens))} ...",
    ]
