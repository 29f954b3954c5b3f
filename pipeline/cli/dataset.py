"""The commands from rows to shards, and SQL. Thin: each calls one function and says what came of it."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.cli.messages import FILES, describe_built
from pipeline.config.loader import load_config
from pipeline.config.schema import DEFAULT_CONFIG, DataConfig
from pipeline.dataset.download import ZENODO
from pipeline.runtime.progress import counting, naming, progress, with_rates
from pipeline.runtime.text import counted

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="From measured promoters to a tested BERT. Any value of the configuration can be overridden behind any "
    "command: shards.k=4 dataset.seed=1",
)

ConfigFile = Annotated[Path, typer.Option("--config", help="Configuration file.")]
DatasetFile = Annotated[
    Path | None, typer.Option("--dataset", help="DuckDB file [default: dataset.path of the config].")
]
SequenceColumn = Annotated[
    str | None, typer.Option(help="Name, or number from 1, of the column of sequences [default: found by itself].")
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


@dataclass(frozen=True)
class Invocation:
    """What a command line says beside a command's own options. overrides: `key.path=value`; schema: of the
    configuration."""

    overrides: tuple[str, ...] = ()
    schema: type[DataConfig] = DataConfig


def configured(context: typer.Context, path: Path, **given: Any) -> DataConfig:
    """The configuration with the command line's overrides; `given` are options by key, None for those not given."""
    invocation: Invocation = context.obj or Invocation()
    options = [f"{key.replace('__', '.')}={json.dumps(value)}" for key, value in given.items() if value is not None]
    return load_config(path, [*invocation.overrides, *options], invocation.schema)


def say(result: dict[str, Any], as_json: bool, lines: list[str]) -> None:
    """Print a result for a script or for a person."""
    print(json.dumps(result, default=str) if as_json else "\n".join(lines))


@app.command()
def generate(
    out: Annotated[Path, typer.Argument(help="File to write: .tsv, .tsv.gz or .parquet.")],
    rows: Annotated[int, typer.Option(help="Promoters.")] = 20_000,
    seed: Annotated[int, typer.Option(help="The same seed gives the same file.")] = 0,
    as_json: Json = False,
) -> None:
    """Generate promoters in the challenge's format, with a known ceiling."""
    from pipeline.dataset.synthetic import generate as run

    with progress("generate", "rows", quiet=as_json) as show:
        made = run(out, rows, seed, counting(show, rows))
    say(
        asdict(made),
        as_json,
        [
            f"{made.path}: {counted(made.rows, 'promoter')}, seed {made.seed}",
            f"ceiling: no model can be expected to correlate with these labels better than Pearson {made.ceiling}",
        ],
    )


@app.command()
def download(
    files: Annotated[
        list[str] | None, typer.Argument(help="train_sequences.txt or test_sequences.txt [default: both].")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder.")] = Path(),
    base_url: Annotated[str, typer.Option("--from", metavar="URL", help="Folder on the web that holds them.")] = ZENODO,
    as_json: Json = False,
) -> None:
    """Download the challenge's files (814 MB, CC BY 4.0). One that was cut off goes on where it was."""
    from pipeline.dataset.download import download as run

    with progress("download", "bytes", quiet=as_json) as show:
        found = run(files or [], out, base_url, show)
    say(
        {"files": [asdict(file) for file in found]},
        as_json,
        [
            f"{file.path}: {file.bytes:,} bytes, sha256 as expected "
            f"({'there already' if file.was_there else f'{file.fetched:,} bytes fetched now'})"
            for file in found
        ],
    )


@app.command()
def build(
    context: typer.Context,
    files: Annotated[list[str], typer.Argument(help=f"Rows: {FILES}; names, patterns or URLs.")],
    config: ConfigFile = DEFAULT_CONFIG,
    dataset: DatasetFile = None,
    sequence_column: SequenceColumn = None,
    expression_column: Annotated[
        str | None, typer.Option(help="Name, or number from 1, of the column of labels [default: found by itself].")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads [default: all cores].")] = None,
    memory: Annotated[str | None, typer.Option(help="Memory limit, such as 2GB [default: 80 % of it].")] = None,
    as_json: Json = False,
) -> None:
    """Build the dataset: promoters, rejects, the pretraining cut and the splits."""
    from pipeline.dataset.build import STEPS, build_dataset
    from pipeline.dataset.input_format import Columns

    settings = configured(context, config, dataset__path=_text(dataset))
    with progress("build", "steps", quiet=as_json) as show:
        columns = Columns(sequence_column, expression_column)
        on_step = naming(show, STEPS)
        built = build_dataset(files, settings, columns=columns, threads=threads, memory_limit=memory, on_step=on_step)
    say(built.as_dict(), as_json, describe_built(built))


@app.command()
def shards(
    context: typer.Context,
    config: ConfigFile = DEFAULT_CONFIG,
    dataset: DatasetFile = None,
    k: Annotated[int | None, typer.Option(help="Bases a token, 1 to 8 [default: shards.k].")] = None,
    out: Annotated[str | None, typer.Option(help="Folder, or URL such as s3://bucket [default: shards.path].")] = None,
    workers: Annotated[int | None, typer.Option(help="Writer processes [default: shards.workers].")] = None,
    stage: Annotated[
        str | None, typer.Option(metavar="STAGE", help="pretrain or finetune only [default: both].")
    ] = None,
    split: Annotated[
        str | None, typer.Option(metavar="SPLIT", help="train, valid or test only [default: all].")
    ] = None,
    executor: Annotated[
        str, typer.Option(help="local, or ray: on the cluster of RAY_ADDRESS (a core a shard, --workers has no say).")
    ] = "local",
    as_json: Json = False,
) -> None:
    """Write the dataset's k-mer shards.

    Shards of another k or split stay, those that are there already are kept; stale ones (of another dataset or flank)
    are replaced.
    """
    from pipeline.shards.executors import EXECUTORS
    from pipeline.shards.plan import splits_of
    from pipeline.shards.write import write_shards

    if executor not in EXECUTORS:
        raise typer.BadParameter(f"{executor!r}: expected {' or '.join(EXECUTORS)}", param_hint="--executor")

    settings = configured(
        context,
        config,
        dataset__path=_text(dataset),
        shards__k=k,
        shards__path=out,
        shards__workers=workers,
    )
    with progress("shards", "promoters", quiet=as_json) as show:
        written = write_shards(settings, splits_of(stage, split), EXECUTORS[executor], with_rates(show))
    there = "all there already; promoter-bert verify reads every byte of them"
    state = f"{written.written:,} written now" if written.written else there
    say(
        asdict(written),
        as_json,
        [
            *(f"replaced the shards that stood there ({difference})" for difference in written.replaced),
            f"{written.folder}: {counted(written.shards, 'shard')} ({state}), {counted(written.rows, 'promoter')}, "
            f"{written.bytes / 1e6:,.1f} MB",
            *([f"note: {written.note}"] if written.note else []),
        ],
    )


@app.command()
def verify(
    folder: Annotated[str, typer.Argument(help="Folder or URL of one k, such as shards/k3.")], as_json: Json = False
) -> None:
    """Read shards again and check every hash, size and count."""
    from pipeline.shards.verify import verify_shards

    with progress("verify", "promoters", quiet=as_json) as show:
        found = verify_shards(folder, lambda done, total: show(done, total, ""))
    say(
        asdict(found),
        as_json,
        [
            f"{found.folder}: whole; {counted(found.shards, 'shard')}, {counted(found.records, 'record')}, "
            f"{counted(found.rows, 'promoter')}"
        ],
    )


@app.command()
def peek(
    folder: Annotated[str, typer.Argument(help="Folder or URL of one k, such as shards/k3.")],
    split: Annotated[
        str | None, typer.Option(help="Such as pretrain/valid [default: finetune/train, or what is there].")
    ] = None,
    promoters: Annotated[int, typer.Option("-n", min=1, help="Promoters shown.")] = 5,
    as_json: Json = False,
) -> None:
    """Show some promoters of the shards, decoded back to bases."""
    from pipeline.shards.index import read_index
    from pipeline.shards.preview import insert_shown
    from pipeline.shards.preview import peek as run

    index = read_index(folder)
    found = run(folder, index, split, promoters)
    say(
        {"promoters": [asdict(promoter) for promoter in found]},
        as_json,
        [
            f"{promoter.file} record {promoter.record}, id {promoter.id}, "
            f"{'no label' if promoter.expression is None else f'expression {promoter.expression:g}'}\n"
            f"  {insert_shown(promoter, index)}\n  tokens {' '.join(map(str, promoter.tokens))} ..."
            for promoter in found
        ],
    )


@app.command()
def query(
    context: typer.Context,
    sql: Annotated[str, typer.Argument(help="A select, or a .sql file such as sql/queries/splits.sql.")],
    config: ConfigFile = DEFAULT_CONFIG,
    dataset: DatasetFile = None,
    rows: Annotated[int, typer.Option(min=1, help="Rows of a table shown at most; other formats hold all.")] = 40,
    form: Annotated[
        str | None,
        typer.Option("--format", help="table, csv, tsv, json, parquet [default: by -o's name, else table]."),
    ] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="File [default: standard output].")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> None:
    """Ask the dataset in SQL; it is opened read-only.

    A select that reads files only, by read_json('runs/*/metrics.jsonl') or another read_ function, needs no dataset.
    """
    from pipeline.dataset.query import FORMATS, format_of, run_query

    if form is not None and form not in FORMATS:
        raise typer.BadParameter(f"{form!r}: expected {', '.join(FORMATS)}", param_hint="--format")
    asked = form or ("json" if as_json else "table" if output is None else format_of(output))
    place = configured(context, config, dataset__path=_text(dataset)).dataset.path
    written = run_query(place, sql, asked, output, rows)
    if output is not None and written is not None:
        print(f"{output}: {counted(written, 'row')}")


@app.command()
def stats(
    context: typer.Context,
    out: Annotated[Path, typer.Option("-o", "--out", help="HTML file to write.")] = Path("stats.html"),
    config: ConfigFile = DEFAULT_CONFIG,
    dataset: DatasetFile = None,
    as_json: Json = False,
) -> None:
    """Show the dataset as one HTML page: sizes, labels, lengths, bases and k-mers."""
    from pipeline.reporting.dataset_page import STEPS, write_stats

    settings = configured(context, config, dataset__path=_text(dataset))
    with progress("stats", "steps", quiet=as_json) as show:
        written = write_stats(settings.dataset.path, out, naming(show, STEPS))
    say(
        asdict(written),
        as_json,
        [f"{written.page}: {counted(written.promoters, 'promoter')}, {written.bytes / 1e3:,.0f} kB"],
    )


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
