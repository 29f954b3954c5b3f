"""Commands that write, verify and preview shards: shards, verify and peek."""

from dataclasses import asdict
from typing import Annotated

import typer

from pipeline.cli.messages import describe_preview, describe_replacement, describe_shards
from pipeline.cli.options import ConfigFile, DatasetFile, Json, configuration, print_result
from pipeline.config.schema import DEFAULT_CONFIG
from pipeline.runtime.progress import add_speed, emit, progress
from pipeline.runtime.text import format_count

ShardFolder = Annotated[
    str, typer.Argument(help="Folder or URL of the shards of one k, such as shards/k3 or s3://bucket/shards/k3.")
]


def shards(
    context: typer.Context,
    config: ConfigFile = DEFAULT_CONFIG,
    dataset: DatasetFile = None,
    k: Annotated[int | None, typer.Option(help="Bases per k-mer, 1 to 8. [default: shards.k of the config]")] = None,
    out: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            help="Output folder, or URL such as s3://bucket/shards. [default: shards.path of the config]",
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Writer processes on this machine. [default: shards.workers of the config]")
    ] = None,
    stage: Annotated[
        str | None, typer.Option(metavar="STAGE", help="Stage to write: pretrain or finetune. [default: both]")
    ] = None,
    split: Annotated[
        str | None, typer.Option(metavar="SPLIT", help="Split to write: train, valid or test. [default: all]")
    ] = None,
    executor: Annotated[
        str,
        typer.Option(help="local, or ray: the cluster at RAY_ADDRESS, one core per shard; ray ignores --workers."),
    ] = "local",
    as_json: Json = False,
) -> None:
    """Write the promoters of the dataset as shards of k-mer ids.

    Valid shards are kept, and so are shards of other splits and of another k. Shards of another dataset or of other
    settings are stale: they are listed and then replaced. After an interruption, run the same command to resume.

    Example: promoter-bert shards --dataset my.duckdb --k 4 -o my_shards
    """
    from pipeline.shards.executors import EXECUTORS
    from pipeline.shards.location import shard_location
    from pipeline.shards.plan import select_splits
    from pipeline.shards.write import write_shards

    if executor not in EXECUTORS:
        raise typer.BadParameter(f"{executor!r}: expected {' or '.join(EXECUTORS)}", param_hint="--executor")
    settings = configuration(
        context, config, dataset__path=dataset, shards__k=k, shards__path=out, shards__workers=workers
    )
    name = settings.assay.name
    with progress("shards", f"{name}s", quiet=as_json) as show:
        written = write_shards(
            settings,
            select_splits(stage, split),
            EXECUTORS[executor],
            add_speed(show),
            lambda index, reasons: emit(describe_replacement(shard_location(settings), index, reasons, name)),
        )
    print_result(written, as_json, describe_shards(written, name))


def verify(folder: ShardFolder, as_json: Json = False) -> None:
    """Verify shards against their index.

    Reads every byte, and compares every hash, size, count and k-mer id.

    Example: promoter-bert verify shards/k3
    """
    from pipeline.shards.verify import verify_shards

    with progress("verify", "promoters", quiet=as_json) as show:
        verified = verify_shards(folder, lambda done, total: show(done, total, ""))
    counts = (
        f"{format_count(verified.shards, 'shard')}, {format_count(verified.records, 'record')}, "
        f"{format_count(verified.rows, 'promoter')}"
    )
    print_result(verified, as_json, [f"{verified.folder}: valid; {counts}"])


def peek(
    folder: ShardFolder,
    split: Annotated[
        str | None,
        typer.Option(help="Split to read, such as pretrain/valid. [default: finetune/train, else the first one]"),
    ] = None,
    promoters: Annotated[int, typer.Option("-n", min=1, help="Number of promoters.")] = 5,
    as_json: Json = False,
) -> None:
    """Print the first promoters of shards.

    Shows the label, the bases and the first tokens of each promoter.

    Example: promoter-bert peek shards/k3 --split finetune/test -n 3
    """
    from pipeline.shards.index import read_index
    from pipeline.shards.preview import peek as run

    index = read_index(folder)
    rows = run(folder, index, split, promoters)
    lines = [line for row in rows for line in describe_preview(row, index)]
    print_result({"promoters": [asdict(row) for row in rows]}, as_json, lines)
