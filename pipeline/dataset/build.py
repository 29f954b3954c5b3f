"""Build dataset.duckdb and its Parquet copy from files of rows, by the numbered statements in sql/.

1. the rules for rows and view `input` (01, inputs/);
2. promoters in random order, rejects with reasons (03 to 05, splits/);
3. the pretraining cut and the splits, macros and comments (06 to 11);
4. the audits, each of which must return no row; then Parquet.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from pathlib import Path

import duckdb

from pipeline.config.schema import DataConfig
from pipeline.dataset.audit import audit, check_promoters, check_sizes
from pipeline.dataset.built_settings import dataset_settings, source_hash
from pipeline.dataset.database import creating, open_dataset, row_count, statement
from pipeline.dataset.hints import hints_of_rejects
from pipeline.dataset.input.columns import Columns
from pipeline.dataset.input.files import Input, find_input
from pipeline.dataset.input.view import define_input, input_error, set_variables
from pipeline.dataset.results import BuildResult, carry_over, existing_result, read_result
from pipeline.dataset.workspace import check_replaceable, publish, working_folder
from pipeline.io.remote import fetch, is_remote

STEPS = 4
"""Steps that a build reports."""

OnStep = Callable[[str], None]


def build_dataset(
    names: list[str],
    config: DataConfig,
    *,
    columns: Columns | None = None,
    threads: int | None = None,
    memory_limit: str | None = None,
    on_step: OnStep = lambda _: None,
) -> BuildResult:
    """Build the dataset that `config.dataset.path` names from files or URLs; on_step receives the name of each step.

    Every input row ends in promoters or in rejects. An existing dataset stays valid until the new one replaces it; one
    of the same files and settings is kept. Raises UserError for invalid input, and while another process builds the
    same dataset.
    """
    target = Path(config.dataset.path)
    check_replaceable(target, names)
    with working_folder(target) as folder:
        local = fetch([name for name in names if is_remote(name)], folder / "fetched")
        source = find_input([local.get(name, name) for name in names], columns)
        source_key = None if local else source_hash(names, source, config)
        if (existing := existing_result(target, source_key)) is not None:
            with open_dataset(target) as connection:
                return _with_notes(existing, connection, source, config)
        try:
            with creating(folder / target.name, threads, memory_limit) as connection:
                set_variables(connection, {"source": source_key, "settings": json.dumps(dataset_settings(config))})
                _run_statements(connection, config, source, on_step)
                for url, file in local.items():
                    connection.execute("update rejects set file = ? where file = ?", [url, file])
                on_step("auditing")
                audit(connection)
                runs_left_out = carry_over(connection, target)
                layout = None if source.layout is None else asdict(source.layout)
                result = replace(read_result(connection, target), runs_left_out=runs_left_out, layout=layout)
                result = _with_notes(result, connection, source, config)
                on_step("writing Parquet")
                _write_parquet(connection, folder / "parquet", result.info.split_rows)
                on_step("")
        except duckdb.Error as error:
            raise input_error(source, error) from None
        publish(folder, target)
    return result


def _with_notes(
    result: BuildResult, connection: duckdb.DuckDBPyConnection, source: Input, config: DataConfig
) -> BuildResult:
    """Add what the dataset itself does not hold: the columns that were read, and the hints for its rejects."""
    sequence, label = source.column_names
    return replace(
        result,
        sequence_column=sequence,
        label_column=label if result.label_range is not None else None,
        hints=hints_of_rejects(connection, source, config.assay),
    )


def _run_statements(connection: duckdb.DuckDBPyConnection, config: DataConfig, source: Input, on_step: OnStep) -> None:
    set_variables(connection, config.dataset.model_dump(exclude={"path"}))
    on_step(f"reading {', '.join(source.files)}")
    labelled = _define_labelled_input(connection, config, source)
    if config.dataset.duplicates != "keep":
        connection.execute(statement("03_duplicates.sql"))
    connection.execute(statement("03_usable_rows.sql"))
    if config.dataset.split == "grouped" and labelled:  # without labels there is one split only
        from pipeline.dataset.grouped_split import grouped_promoters

        leaks = grouped_promoters(connection, config.dataset.max_mismatches)
        set_variables(connection, {"random_split_leaks": leaks})
    else:
        connection.execute(statement("splits/random.sql"))
    connection.execute(statement("05_rejects.sql"))
    check_promoters(connection, config.assay, source)
    on_step("cutting and splitting")
    for name in ("06_cut_and_sizes.sql", "07_finetune.sql", "08_pretrain.sql"):
        connection.execute(statement(name))
    check_sizes(connection)
    for name in ("09_sequence_macros.sql", "10_results.sql", "11_comments.sql"):
        connection.execute(statement(name))


def _define_labelled_input(connection: duckdb.DuckDBPyConnection, config: DataConfig, source: Input) -> bool:
    """Define view `input`; returns whether any of its rows has a label.

    find_input read the first lines of text, and the column names of Parquet. Labels may begin after those lines (the
    rows before are then rejects), and a column of labels may be empty.
    """
    define_input(connection, config.assay, source)
    if source.labelled == (source.layout is not None):
        return source.labelled
    labelled = row_count(connection, "(from input where isfinite(try_cast(expression as double)) limit 1)") > 0
    if labelled != source.labelled:
        define_input(connection, config.assay, replace(source, labelled=labelled))
    return labelled


def _write_parquet(connection: duckdb.DuckDBPyConnection, folder: Path, splits: Iterable[str]) -> None:
    """Write each split, such as finetune/train, in the order of positions, and the rejects."""
    for name in [*splits, "rejects"]:
        stage, _, split = name.partition("/")
        # Splits are ranges of a table in that order; DuckDB keeps it.
        rows = f"select id, sequence, expression from {stage} where split = '{split}'" if split else f"from {stage}"
        file = folder / f"{name}.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        # No dictionaries: nearly every sequence is unique, and searching for repeats takes time.
        options = "format parquet, compression snappy, dictionary_size_limit 1"
        connection.execute(f"copy ({rows}) to ? ({options})", [str(file)])
