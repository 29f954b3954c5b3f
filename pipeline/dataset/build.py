"""Build dataset.duckdb and its Parquet copy from input files, by the numbered statements in sql/.

1. the rules for rows, and view `input` (01, inputs/);
2. promoters in random order, and rejects with reasons (03 to 05, splits/);
3. the pretraining threshold, the splits, macros and comments (06 to 11);
4. the audits, each of which must return no row, and what a replacement would lose;
5. the Parquet files (12).
"""

import dataclasses
import json
from collections.abc import Callable, Mapping

import duckdb

from pipeline.config.schema import DataConfig
from pipeline.dataset.audit import audit, check_header_lines, check_promoters, check_sizes
from pipeline.dataset.built_settings import dataset_settings, source_hash
from pipeline.dataset.database import create_dataset, dataset_info, open_dataset, row_count, statement
from pipeline.dataset.hints import hints_of_rejects
from pipeline.dataset.input.columns import Columns
from pipeline.dataset.input.files import Input, find_input, resolve_files
from pipeline.dataset.input.row_count import count_rows
from pipeline.dataset.input.view import define_input, input_error, set_variables
from pipeline.dataset.parquet import write_parquet
from pipeline.dataset.replacement import check_replacement, recorded_names
from pipeline.dataset.results import BuildResult, carry_over, define_measurements, existing_result, read_result
from pipeline.dataset.row_notes import collect_notes
from pipeline.dataset.rows.columns import define_columns, name_columns
from pipeline.dataset.rows.design import count_designs, find_design, join_design, load_design
from pipeline.dataset.rows.given_split import count_given_rows
from pipeline.dataset.rows.group_column import find_group_column
from pipeline.dataset.rows.names import quoted
from pipeline.dataset.splits.split_leaks import record_leaks
from pipeline.dataset.workspace import check_inputs, check_replaceable, dataset_files, publish, working_files
from pipeline.errors import UserError
from pipeline.io.remote import fetch, is_remote

STEPS = 4
"""Number of steps that a build reports."""

OnStep = Callable[[str], None]


def build_dataset(
    names: list[str],
    config: DataConfig,
    *,
    columns: Columns | None = None,
    split_files: Mapping[str, list[str]] | None = None,
    sequences: list[str] | None = None,
    replace: bool = False,
    threads: int | None = None,
    memory_limit: str | None = None,
    on_step: OnStep = lambda _: None,
) -> BuildResult:
    """Build the dataset that `config.dataset.path` names from files or URLs; on_step receives the name of each step.

    Every input row ends in promoters or in rejects. An existing dataset stays valid until the new one replaces it; one
    of the same files and settings is kept. split_files: files or URLs of each split (train, valid, test) in place of
    names: a given split, as with dataset.split=column. sequences: files of sequences, whose names the column
    `columns.sequence` of the rows holds. replace: also replace a dataset with labels that the new one lacks, with
    recorded runs on other rows, or of other files. Raises UserError for such a dataset without `replace`, for invalid
    input, and while another process builds the same dataset.
    """
    files = dataset_files(config.dataset.path)
    split_files = split_files or {}
    if split_files:
        if config.dataset.split == "grouped":
            raise UserError(
                "dataset.split=grouped: the files give the split (--train, --valid, --test); fix: name the files "
                f"without these options to group their rows, or {config.dataset.switch_split('column')}"
            )
        names = [*names, *(name for each in split_files.values() for name in each)]
        config = config.model_copy(update={"dataset": config.dataset.model_copy(update={"split": "column"})})
    names = [*names, *(sequences or [])]
    check_inputs(files, names)
    check_replaceable(files)
    with working_files(files) as working:
        local = fetch([name for name in names if is_remote(name)], working.database.parent / "fetched")
        rows = [local.get(name, name) for name in (names[: -len(sequences)] if sequences else names)]
        requested = _requested_columns(columns, config, by_name=bool(sequences))
        source = find_input(rows, requested)
        design = None
        if sequences:
            design = find_design([local.get(name, name) for name in sequences], requested.sequence or "")
            check_inputs(files, design.files)
        split_of = {
            split: resolve_files([local.get(name, name) for name in each]) for split, each in split_files.items()
        }
        check_inputs(files, source.files)
        source_key = None if local else source_hash(names, source, config, split_of, design)
        if (existing := existing_result(files, source_key)) is not None:
            with open_dataset(files.database) as connection:
                return _with_notes(existing, connection, source, config)
        url_of = {file: url for url, file in local.items()}
        try:
            with create_dataset(working.database, threads, memory_limit) as connection:
                inputs = [*source.files, *(design.files if design is not None else ())]
                recorded = recorded_names([url_of.get(file, file) for file in inputs], files.database.parent)
                settings = json.dumps(dataset_settings(config))
                set_variables(connection, {"source": source_key, "settings": settings, "files": recorded})
                marks = _run_statements(connection, config, source, split_of, design, on_step)
                designs = count_designs(connection) if design is not None else None
                for file, url in url_of.items():
                    connection.execute("update rejects set file = ? where file = ?", [url, file])
                on_step("auditing")
                audit(connection, marks)
                if not replace:
                    check_replacement(connection, files.database)
                runs_left_out = carry_over(connection, files.database)
                layout = None if source.layout is None else source.layout.as_dict()
                result = read_result(connection, files, runs_left_out=runs_left_out, layout=layout, designs=designs)
                result = _with_notes(result, connection, source, config)
                on_step("writing Parquet")
                write_parquet(connection, working, result.info, source_key, marks)
                on_step("")
        except duckdb.Error as error:
            raise input_error(source, error) from None
        publish(working, files)
    return result


def _with_notes(
    result: BuildResult, connection: duckdb.DuckDBPyConnection, source: Input, config: DataConfig
) -> BuildResult:
    """Add what the dataset itself does not hold: the columns that were read, and the hints for its rejects."""
    columns = name_columns(source)
    sequence, label = source.column_names
    return dataclasses.replace(
        result,
        sequence_column=sequence,
        label_column=label if result.label_range is not None else None,
        hints=hints_of_rejects(connection, source, config.assay),
        notes=collect_notes(connection, source, config.assay),
        kept_columns=[column.name for column in columns.kept],
        renamed_columns=columns.renamed,
    )


def _requested_columns(columns: Columns | None, config: DataConfig, by_name: bool) -> Columns:
    """Return the requested columns: those of the call, else those of the settings.

    by_name: the column of sequences holds their names. Raises UserError if it is then not named.
    """
    columns, dataset = dataclasses.replace(columns or Columns(), by_name=by_name), config.dataset
    if by_name and not (columns.sequence or dataset.sequence_column):
        raise UserError("--sequences: no column of names; fix: --sequence-name NAME, the column that holds them")
    if columns.unlabelled:
        return dataclasses.replace(columns, sequence=columns.sequence or dataset.sequence_column or None)
    return dataclasses.replace(
        columns,
        sequence=columns.sequence or dataset.sequence_column or None,
        expression=columns.labels or tuple(dataset.labels) or None,
    )


def _run_statements(
    connection: duckdb.DuckDBPyConnection,
    config: DataConfig,
    source: Input,
    split_files: Mapping[str, list[str]],
    design: Input | None,
    on_step: OnStep,
) -> dict[str, str]:
    """Create the relations of the dataset. Returns the SQL for the marks in later statements."""
    # model_dump would omit the settings that older datasets do not record.
    set_variables(connection, {name: value for name, value in config.dataset if name != "path"})
    on_step(f"reading {', '.join(source.files)}")
    set_variables(connection, {"input_rows": count_rows(source)})
    if design is not None:
        load_design(connection, config.assay, design)
    labelled = _define_labelled_input(connection, config, source)
    if design is not None:
        join_design(connection)
    columns = define_columns(connection, source, config.dataset, labelled, split_files)
    marks = columns.marks
    if config.dataset.duplicates != "keep":
        connection.execute(statement("03_duplicates.sql", marks))
    connection.execute(statement("03_usable_rows.sql", marks))
    if columns.given is not None:
        count_given_rows(connection, columns.given, config.dataset)
    if config.dataset.split == "grouped" and labelled:  # without labels there is one split only
        from pipeline.dataset.splits.grouped_split import create_grouped_promoters

        if (group := find_group_column(source, columns, config.dataset.group_column)) is not None:
            marks = {**marks, "group_code": group.code, "group_name": f", promoters.{quoted(group.name)}"}
        leaks, largest = create_grouped_promoters(connection, config.dataset, marks)
        set_variables(connection, {"random_split_leaks": leaks, "largest_cluster": dataclasses.asdict(largest)})
    else:
        connection.execute(statement("splits/random.sql", marks))
    connection.execute(statement("05_rejects.sql", marks))
    check_promoters(connection, config.assay, source)
    check_header_lines(connection, source)
    on_step("computing threshold and splits")
    for name in ("06_cut_and_sizes.sql", "07_finetune.sql", "08_pretrain.sql"):
        connection.execute(statement(name, marks))
    check_sizes(connection)
    record_leaks(connection, config.dataset.group_overlap)
    for name in ("09_sequence_macros.sql", "10_results.sql", "11_comments.sql"):
        connection.execute(statement(name))
    define_measurements(connection, dataset_info(connection).several_labels)
    return marks


def _define_labelled_input(connection: duckdb.DuckDBPyConnection, config: DataConfig, source: Input) -> bool:
    """Define view `input`; returns whether any of its rows has a label.

    find_input reads the first lines of text, or the column names of Parquet. The first label may come after those
    lines: rows without a label are then rejects. A label column may also be empty.
    """
    define_input(connection, config.assay, source)
    if len(source.label_columns) > 1:
        if not source.labelled:
            define_input(connection, config.assay, dataclasses.replace(source, labelled=True))
        return True
    if source.labelled == (source.layout is not None):
        return source.labelled
    labelled = row_count(connection, "(from input where isfinite(try_cast(expression as double)) limit 1)") > 0
    if labelled != source.labelled:
        define_input(connection, config.assay, dataclasses.replace(source, labelled=labelled))
    return labelled
