"""What the commands say of what they did."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.dataset import Built

FILES = ".tsv, .csv, .txt, .fasta (also .gz, .zst) or .parquet"


def counted(n: int, one: str, many: str = "") -> str:
    """1 row, 2 rows."""
    return f"{n:,} {one}" if n == 1 else f"{n:,} {many or f'{one}s'}"


def describe_built(built: "Built") -> list[str]:
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
    lines += [f"rejected   {count:,}: {reason}" for reason, count in built.rejects.items()]
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
            f"note       {built.held_out_pretrained:,} promoters held out from fine-tuning are pretrained on (without "
            "their labels); a larger dataset.pretrain_valid keeps them out"
        )
    if built.runs_left_out:
        lines.append(
            f"note       {counted(built.runs_left_out, 'run')} of the dataset that stood here before are of other rows "
            "or splits and not in this one; their folders keep what they found"
        )
    return lines
