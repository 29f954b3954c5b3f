"""The commands generate, download, build, query and stats."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from pipeline.cli.messages import describe_build, describe_leaks
from pipeline.cli.options import INPUT_FILES, ConfigFile, DatasetFile, Json, SequenceColumn, configuration, print_result
from pipeline.config.schema import DEFAULT_CONFIG
from pipeline.runtime.progress import count_steps, count_units, progress
from pipeline.runtime.text import format_count


def generate(
    out: Annotated[Path, typer.Argument(help="File to write: .tsv, .tsv.gz or .parquet.")],
    rows: Annotated[int, typer.Option(help="Number of promoters.")] = 20_000,
    seed: Annotated[int, typer.Option(help="Random seed; the same seed gives the same file.")] = 0,
    kind: Annotated[
        Literal["random", "native"],
        typer.Option(help="Inserts: random bases, or native-like with binding sites, which pretraining can learn."),
    ] = "random",
    as_json: Json = False,
) -> None:
    """Generate synthetic promoters with a known score ceiling.

    The file has the format of the DREAM Challenge 2022.

    Example: promoter-bert generate rows.tsv --rows 50000
    """
    from pipeline.dataset.synthetic.generate import generate as run

    with progress("generate", "rows", quiet=as_json) as show:
        result = run(out, rows, seed, count_units(show, rows), kind)
    lines = [
        f"{result.path}: {format_count(result.rows, 'promoter')}, seed {result.seed}",
        f"ceiling    highest expected Pearson of any model, on all promoters of the file: {result.ceiling}",
    ]
    print_result(result, as_json, lines)


def download(
    files: Annotated[
        list[str] | None, typer.Argument(help="train_sequences.txt or test_sequences.txt. [default: both]")
    ] = None,
    out: Annotated[
        Path, typer.Option("-o", "--output", help="Folder for the files. [default: this folder]", show_default=False)
    ] = Path(),
    base_url: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="URL", help="URL of the folder to download from. [default: Zenodo record 10633252]"
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Download the DREAM Challenge's rows (814 MB, CC BY 4.0).

    Size and sha256 are checked. Run the same command to resume an interrupted download.

    Example: promoter-bert download test_sequences.txt -o data
    """
    from pipeline.dataset.download import ZENODO
    from pipeline.dataset.download import download as run

    with progress("download", "bytes", quiet=as_json) as show:
        results = run(files or [], out, base_url or ZENODO, show)
    lines = [
        f"{file.path}: {file.bytes:,} bytes, sha256 as expected "
        f"({'already present' if file.existing else f'{file.fetched:,} bytes downloaded'})"
        for file in results
    ]
    print_result({"files": [file.as_dict() for file in results]}, as_json, lines)


def build(
    context: typer.Context,
    files: Annotated[
        list[str] | None, typer.Argument(help=f"Rows: {INPUT_FILES}; names, glob patterns or URLs.")
    ] = None,
    config: ConfigFile = DEFAULT_CONFIG,
    dataset: DatasetFile = None,
    train: Annotated[
        list[str] | None, typer.Option(help="Training rows, in place of FILES: the splits are given. Repeatable.")
    ] = None,
    valid: Annotated[list[str] | None, typer.Option(help="Validation rows, with --train. Repeatable.")] = None,
    test: Annotated[list[str] | None, typer.Option(help="Test rows, with --train. Repeatable.")] = None,
    sequence_column: SequenceColumn = None,
    expression_column: Annotated[
        list[str] | None,
        typer.Option(
            help="Label column: its name, or its number from 1; in FASTA a key of the headers, or the number of a "
            "field. Repeat the option for several labels. [default: detected]"
        ),
    ] = None,
    sequences: Annotated[
        list[str] | None,
        typer.Option(
            help="FASTA or table of sequences, for FILES that hold their names in column --sequence-name. Repeatable."
        ),
    ] = None,
    sequence_name: Annotated[
        str | None,
        typer.Option(help="With --sequences: column of names in FILES, and in a table of sequences."),
    ] = None,
    no_labels: Annotated[
        bool, typer.Option("--no-labels", help="Ignore labels: all promoters become test rows, for predictions.")
    ] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace a dataset even if labels, runs or rows of other files are lost.")
    ] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="Number of threads. [default: all cores]")] = None,
    memory: Annotated[str | None, typer.Option(help="Memory limit, such as 2GB. [default: 80 % of the RAM]")] = None,
    as_json: Json = False,
) -> None:
    """Build the dataset from rows: promoters, rejects, splits.

    The DuckDB file and the Parquet files beside it are replaced only when the new dataset is complete.

    Example: promoter-bert build rows.tsv --dataset my.duckdb
    """
    from pipeline.dataset.build import STEPS, build_dataset
    from pipeline.dataset.input.columns import Columns

    if no_labels and expression_column:
        message = "cannot be combined with --expression-column; fix: omit one of the two"
        raise typer.BadParameter(message, param_hint="--no-labels")
    split_files = {name: each for name, each in (("train", train), ("valid", valid), ("test", test)) if each}
    if bool(files) == bool(split_files):
        raise typer.BadParameter("expected FILES, or one file per split: --train FILE --valid FILE", param_hint="FILES")
    if bool(sequences) != bool(sequence_name) or (sequences and sequence_column):
        message = "expected --sequences FILE together with --sequence-name COLUMN, and no --sequence-column"
        raise typer.BadParameter(message, param_hint="--sequences")
    settings = configuration(
        context,
        config,
        dataset__path=dataset,
        dataset__sequence_column=sequence_column,
        dataset__labels=expression_column or None,
    )
    columns = Columns(sequence_name, unlabelled=no_labels)
    with progress("build", "steps", quiet=as_json) as show:
        built = build_dataset(
            files or [],
            settings,
            columns=columns,
            split_files=split_files,
            sequences=sequences,
            replace=replace,
            threads=threads,
            memory_limit=memory,
            on_step=count_steps(show, STEPS),
        )
    print_result(built.as_dict(), as_json, describe_build(built))


def query(
    context: typer.Context,
    sql: Annotated[str, typer.Argument(help="A select, a .sql file, or the name of a query below.")],
    config: ConfigFile = DEFAULT_CONFIG,
    dataset: DatasetFile = None,
    rows: Annotated[
        int, typer.Option(min=1, help="Maximum number of rows in a table; other formats hold all rows.")
    ] = 40,
    form: Annotated[
        str | None,
        typer.Option("--format", help="table, csv, tsv, json or parquet. [default: by the name of -o, else table]"),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="File to write. [default: standard output]")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> None:
    """Query the dataset in SQL, read-only.

    A select that only reads files, by read_json('runs/*/metrics.jsonl') or another read_ function, needs no dataset.

    Queries: bases_by_position, calibration, duplicates, gc_against_expression, insert_lengths, kmer_enrichment,
    label_histogram, labels_by_split, motif_effect, near_duplicates, predicted_and_measured, record_of_a_promoter,
    rejects_by_reason, residuals_by_expression, residuals_by_gc, residuals_by_length, rows_with_n, splits, tied_labels,
    typical_error, worst_predictions.

    Example: promoter-bert query splits --format csv
    """
    from pipeline.dataset.query import FORMATS, format_of, run_query

    if form is not None and form not in FORMATS:
        raise typer.BadParameter(f"{form!r}: expected {', '.join(FORMATS)}", param_hint="--format")
    form = form or ("json" if as_json else "table" if output is None else format_of(output))
    settings = configuration(context, config, dataset__path=dataset)
    written = run_query(settings.dataset.path, sql, form, output, rows, settings.build_command)
    if output is not None and written is not None:
        print(f"{output}: {format_count(written, 'row')}")


def leaks(
    context: typer.Context,
    config: ConfigFile = DEFAULT_CONFIG,
    dataset: DatasetFile = None,
    memory: Annotated[str | None, typer.Option(help="Memory limit, such as 2GB. [default: 80 % of the RAM]")] = None,
    as_json: Json = False,
) -> None:
    """Count held-out rows that resemble training rows.

    Near-duplicates, reverse complements and shared runs of 40 bases, on either strand. `build` counts them itself in
    datasets of up to 100,000 promoters.

    Example: promoter-bert leaks --dataset my.duckdb
    """
    from pipeline.dataset.splits.split_leaks import examine_dataset

    settings = configuration(context, config, dataset__path=dataset)
    path = settings.dataset.path
    found = examine_dataset(path, memory, settings.build_command)
    print_result(found, as_json, [f"{path}: {describe_leaks(found, path)}"])


def stats(
    context: typer.Context,
    out: Annotated[Path, typer.Option("-o", "--output", help="HTML file to write.")] = Path("stats.html"),
    config: ConfigFile = DEFAULT_CONFIG,
    dataset: DatasetFile = None,
    as_json: Json = False,
) -> None:
    """Write a page of dataset statistics.

    One HTML file: sizes, labels, lengths, base composition and k-mers.

    Example: promoter-bert stats --dataset my.duckdb -o stats.html
    """
    from pipeline.reporting.dataset_page import STEPS, write_stats

    settings = configuration(context, config, dataset__path=dataset)
    with progress("stats", "steps", quiet=as_json) as show:
        written = write_stats(settings.dataset.path, out, count_steps(show, STEPS), settings.build_command)
    lines = [f"{written.page}: {format_count(written.promoters, settings.assay.name)}, {written.bytes / 1e3:,.0f} kB"]
    print_result(written, as_json, lines)
