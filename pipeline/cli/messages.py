"""What the commands say of what they did."""

import json
from typing import TYPE_CHECKING

from pipeline.dataset.repairs import repair_of
from pipeline.runtime.text import counted

if TYPE_CHECKING:
    from pipeline.dataset.build_result import BuildResult
    from pipeline.dataset.database import DatasetInfo

FILES = ".tsv, .csv, .txt, .fasta (also .gz, .zst) or .parquet"


def describe_built(built: "BuildResult") -> list[str]:
    """The sizes of a dataset, what was rejected or repaired, and what its user should know."""
    info = built.info
    there = " (built from the same files and settings before: nothing to do)" if built.was_there else ""
    lines = [
        f"{built.dataset}: {counted(info.promoters, 'promoter')} of {counted(info.input_rows, 'row')}; "
        f"Parquet in {built.parquet}{there}"
    ]
    if info.cut is None:
        lines.append(f"no labels  to be predicted only: all {info.promoters:,} promoters are test rows of finetune")
    else:
        lines += [
            f"pretrain   {info.pretrain_rows:,} rows at or above the cut of {info.cut:g}: "
            f"train {info.pretrain_rows - info.pretrain_valid_rows:,}, valid {info.pretrain_valid_rows:,}",
            f"finetune   train {info.finetune_train_rows:,}, valid {info.finetune_valid_rows:,}, "
            f"test {info.finetune_test_rows:,}",
        ]
    lines += [f"repaired   {count:,}: assay.{rule}" for rule, count in built.repairs.items()]
    assay = json.loads(info.settings)["assay"] if info.settings else {}
    for reason, count in built.rejects.items():
        way_out = repair_of(reason, assay) if assay else ""
        lines.append(f"rejected   {count:,}: {reason}{f' (to repair: {way_out})' if way_out else ''}")
    if built.layout is not None and built.layout["kind"] == "fasta" and info.cut is not None:
        lines.append("read       FASTA: labels from the last word of each header")
    elif built.layout is not None and (built.layout["skip_lines"] or built.layout["columns"] > 2):
        layout = built.layout
        header = "a header line and " if layout["skip_lines"] else ""
        labels = f"labels in column {layout['expression_field']}" if layout["expression_field"] else "no labels"
        lines.append(
            f"read       {header}{layout['columns']} columns: sequences in column {layout['sequence_field']}, {labels}"
        )
    if info.random_split_leaks is not None:
        lines.append(
            f"grouped    a random split would hold out {counted(info.random_split_leaks, 'row')} with "
            "near-duplicates in training; this one holds out none"
        )
    if built.held_out_pretrained:
        lines.append(
            f"note       {counted(built.held_out_pretrained, 'promoter')} held out from fine-tuning "
            f"{'is' if built.held_out_pretrained == 1 else 'are'} pretrained on (without labels); a larger "
            "dataset.pretrain_valid keeps them out"
        )
    empty = [] if info.cut is None else _empty_splits(info)
    if empty:
        larger = " ".join(f"dataset.{split.replace('/', '_')}=0.1" for split in empty)
        verb = "has" if len(empty) == 1 else "have"
        lines.append(f"note       {', '.join(empty)} {verb} no rows, which train.py needs; build again with {larger}")
    if built.runs_left_out:
        lines.append(
            f"note       {counted(built.runs_left_out, 'run')} of the dataset that stood here before are of other rows "
            "or splits and not in this one; their folders keep what they found"
        )
    return lines


def _empty_splits(info: "DatasetInfo") -> list[str]:
    """Those of no rows that training needs; a pretrain/train without any is refused."""
    rows = {
        "pretrain/valid": info.pretrain_valid_rows,
        "finetune/train": info.finetune_train_rows,
        "finetune/valid": info.finetune_valid_rows,
    }
    return [split for split, count in rows.items() if not count]
