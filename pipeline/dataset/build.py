"""Rows in files -> dataset.duckdb and Parquet beside it, by the statements in sql/.

1. what the files are (inputs.py); nothing is done where the dataset is of the same files and settings already;
2. the rules for rows and the input view (text, FASTA or Parquet);
3. promoters in random order, rejects with reasons, the cut and the splits;
4. the audits, each of which must return no row;
5. Parquet; then both are renamed into place.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import duckdb

from pipeline.config.schema import DataConfig
from pipeline.dataset.built_settings import dataset_settings
from pipeline.dataset.database import DatasetInfo, dataset_info, explain, is_duckdb, reading, rows_of, statement
from pipeline.dataset.input_format import Columns, Input, find_input
from pipeline.dataset.input_view import define_input, set_variables
from pipeline.dataset.repairs import repair_of
from pipeline.errors import UserError
from pipeline.io.atomic import flush_to_disk, recover_folder, replace_folder
from pipeline.io.locks import hold_lock
from pipeline.io.remote import fetch, is_remote
from pipeline.paths import SQL

STORAGE_VERSION = "v1.2.0"
"""The oldest DuckDB that can open the file."""
PRODUCTS = ("shards", "records", "runs", "metrics", "predictions")
"""The relations of 10_results.sql."""
RELATIONS = {
    *("promoters", "rejects", "repairs", "near_duplicates", "dataset", "finetune", "pretrain"),
    *PRODUCTS,
}
"""All that a dataset holds."""
PARQUET_NAMES = {"finetune", "pretrain", "rejects.parquet"}
"""What lies in the folder of Parquet beside the database."""
STEPS = 4
"""How often a build says what it does now."""
KNOWN_HASH = ("ACGT", 7, 17626680035712261508)
"""DuckDB's hash is its own affair: splits are the same everywhere only as long as it is, so it is checked."""


@dataclass(frozen=True)
class Built:
    """What `build` made, or found."""

    dataset: str
    parquet: str
    info: DatasetInfo
    rejects: dict[str, int]
    """Rows by reason."""
    repairs: dict[str, int]
    """Promoters by the assay's setting that repaired them."""
    held_out_pretrained: int
    """Promoters held out from fine-tuning that are in pretraining's train split."""
    runs_left_out: int = 0
    """Runs that the dataset of this name held before, trained on other rows or splits."""
    layout: dict[str, Any] | None = None
    """How the rows were found to be written; None for Parquet."""
    was_there: bool = False
    """Whether the dataset is of the same files and settings already, so that nothing was done."""

    def as_dict(self) -> dict[str, Any]:
        """For --json; the flanks left out."""
        values = asdict(self)
        info = {name: value for name, value in values.pop("info").items() if name not in ("upstream", "downstream")}
        return {**info, **values}


def build(
    names: list[str],
    config: DataConfig,
    *,
    columns: Columns | None = None,
    threads: int | None = None,
    memory_limit: str | None = None,
    step: Callable[[str], None] = lambda _: None,
) -> Built:
    """Build the dataset that `config.dataset.path` names from files or URLs. `step` is told what is being done.

    Every input row ends in promoters or in rejects. What stood at that path stays whole until the new dataset is.
    One build at a time: raises UserError naming the process that is at it, and for input that cannot be used.
    """
    target = Path(config.dataset.path)
    parquet = target.with_suffix(".parquet")
    _check_places(target, parquet, names)
    with _working_folder(target) as folder:
        recover_folder(parquet)
        local = fetch([name for name in names if is_remote(name)], folder / "fetched")
        given = find_input([local.get(name, name) for name in names], columns)
        source = _source(names, given, config) if not local else None
        found = _standing(target, parquet, source)
        if found is not None:
            return found
        database = folder / target.name
        connection = duckdb.connect()
        try:
            _set_up(connection, database, folder, threads, memory_limit)
            set_variables(connection, {"source": source, "settings": json.dumps(dataset_settings(config))})
            given = _run(connection, config, given, step)
            for url, file in local.items():
                connection.execute("update rejects set file = ? where file = ?", [url, file])
            step("auditing")
            _audit(connection)
            left_out = _carry_over(connection, target)
            summary = _summary(connection, target, parquet)
            step("writing Parquet")
            _write_parquet(connection, folder / "parquet")
            step("")
        except duckdb.Error as error:
            raise explain(error) from None
        finally:
            connection.close()
        flush_to_disk(database)
        # In a thread, which Ctrl-C does not reach: the main thread is interrupted, but waits for it.
        with ThreadPoolExecutor(1) as thread:
            thread.submit(_publish, folder / "parquet", parquet, database, target).result()
    layout = None if given.layout is None else asdict(given.layout)
    return Built(**summary, runs_left_out=left_out, layout=layout)


def _publish(new_parquet: Path, parquet: Path, database: Path, target: Path) -> None:
    """The database comes last: where a kill leaves the new Parquet beside the old database, the next build sees it."""
    replace_folder(new_parquet, parquet)
    # What a killed writer left to be done in the old database would be done in the new one.
    target.with_name(f"{target.name}.wal").unlink(missing_ok=True)
    database.replace(target)


def _check_places(target: Path, parquet: Path, names: list[str]) -> None:
    """Raise UserError where the dataset would take the place of an input, or of anything that is no dataset."""
    choose = "choose another one: --dataset NAME.duckdb"
    if target.suffix != ".duckdb":
        raise UserError(f"{target}: a dataset's name ends in .duckdb; {choose}")
    if any(Path(name).resolve() in (target.resolve(), parquet.resolve()) for name in names if not is_remote(name)):
        raise UserError(f"the dataset is written to {target} and {parquet}, where an input file is; {choose}")
    if target.exists():
        _check_replaceable(target, choose)
    if parquet.exists() and not (parquet.is_dir() and {path.name for path in parquet.iterdir()} <= PARQUET_NAMES):
        raise UserError(
            f"{parquet} is there and is not the Parquet of a dataset, which is to be written there; {choose}"
        )


def _check_replaceable(target: Path, choose: str) -> None:
    """Raise UserError where the file at the target is no dataset, or holds tables that a build did not make."""
    if not is_duckdb(target):
        raise UserError(f"{target} is there and is no DuckDB file; {choose}")
    with reading(target) as connection:
        names = {name for (name,) in rows_of(connection, "select table_name from information_schema.tables")}
    if "dataset" not in names or names - RELATIONS:
        others = ", ".join(sorted(names - RELATIONS)) or "other things"
        raise UserError(f"{target} is there and holds {others}, which would be lost; {choose}")


@contextmanager
def _working_folder(target: Path) -> Iterator[Path]:
    """A folder beside the target that is gone afterwards; what a killed build left in it goes first."""
    folder = target.with_name(f".{target.name}.partial")
    lock = target.with_name(f".{target.name}.lock")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with hold_lock(lock, f"is building {target}; wait for it"):
            try:
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)
                lock.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{target}: cannot write: {error.strerror or error}") from None


def _source(names: list[str], given: Input, config: DataConfig) -> str:
    """A hash of all that a dataset depends on: files by size and time of change, layout, settings, statements."""
    states = [(Path(file).resolve(), Path(file).stat()) for file in given.files]
    files = [(str(path), state.st_size, state.st_mtime_ns) for path, state in states]
    files_of_sql = sorted([*SQL.glob("*.sql"), *SQL.glob("inputs/*.sql"), *SQL.glob("splits/*.sql")])
    statements = {str(path.relative_to(SQL)): path.read_text(encoding="utf-8") for path in files_of_sql}
    parts = [names, files, asdict(given), dataset_settings(config), statements]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _standing(target: Path, parquet: Path, source: str | None) -> Built | None:
    """The dataset that stands at the target, if it is of this source and whole."""
    if source is None or not target.exists() or not parquet.is_dir():
        return None
    try:
        with reading(target) as connection:
            if rows_of(connection, "select source from dataset") != [(source,)]:
                return None
            return Built(**_summary(connection, target, parquet), was_there=True)
    except (UserError, duckdb.Error):
        return None


def _summary(connection: duckdb.DuckDBPyConnection, target: Path, parquet: Path) -> dict[str, Any]:
    """What a dataset holds, as fields of Built."""
    by_count = "group by reason order by count(*) desc, reason"
    return {
        "dataset": str(target),
        "parquet": str(parquet),
        "info": dataset_info(connection),
        "rejects": dict(rows_of(connection, f"select reason, count(*) from rejects {by_count}")),
        "repairs": dict(rows_of(connection, 'select rule, "rows" from repairs order by all')),
        "held_out_pretrained": _count(
            connection,
            "pretrain where split = 'train' and id < (select finetune_test_rows + finetune_valid_rows from dataset)",
        ),
    }


def _set_up(
    connection: duckdb.DuckDBPyConnection,
    database: Path,
    folder: Path,
    threads: int | None,
    memory_limit: str | None,
) -> None:
    sequence, seed, expected = KNOWN_HASH
    ((found,),) = rows_of(connection, "select hash(hash(?, ?::ubigint))", [sequence, seed])
    if found != expected:
        raise UserError(
            f"DuckDB {duckdb.__version__} computes another hash than the versions 1.4 to 2.0 do, so the splits "
            "would not be those of other machines; install a DuckDB of constraints.txt"
        )
    connection.execute("set temp_directory = ?", [str(folder / "spill")])
    if threads is not None:
        connection.execute("set threads = ?", [threads])
    if memory_limit is not None:
        try:
            connection.execute("set memory_limit = ?", [memory_limit])
        except duckdb.Error:
            raise UserError(f"--memory {memory_limit}: expected a size with its unit, such as 2GB") from None
    # What DuckDB finds best for sequences after trying all; without the search a fifth of the writing is saved.
    connection.execute("set force_compression = 'fsst'")
    location = str(database).replace("'", "''")
    connection.execute(f"attach '{location}' as dataset (storage_version '{STORAGE_VERSION}')")
    connection.execute("use dataset")


def _run(connection: duckdb.DuckDBPyConnection, config: DataConfig, given: Input, step: Callable[[str], None]) -> Input:
    """The numbered statements, in order. Returns the input as it was taken."""
    files = ", ".join(given.files)
    set_variables(connection, config.dataset.model_dump(exclude={"path"}))
    define_input(connection, config.assay, given)
    step(f"reading {files}")
    # Of text the first lines were looked at: labels may come further down (the rows without one are rejects then), and
    # of Parquet the names of the columns only.
    if given.labelled != (given.layout is not None):
        labelled = bool(_count(connection, "(from input where isfinite(try_cast(expression as double)) limit 1)"))
        if labelled != given.labelled:
            given = replace(given, labelled=labelled)
            define_input(connection, config.assay, given)
    if config.dataset.duplicates != "keep":
        connection.execute(statement("03_duplicates.sql"))
    connection.execute(statement("03_usable_rows.sql"))
    if config.dataset.split == "grouped" and given.labelled:  # without labels there is one split only
        from pipeline.dataset.grouped_split import grouped_promoters

        leaks = grouped_promoters(connection, config.dataset.max_mismatches)
        set_variables(connection, {"random_split_leaks": leaks})
    else:
        connection.execute(statement("splits/random.sql"))
    connection.execute(statement("05_rejects.sql"))
    if _count(connection, "promoters") == 0:
        raise UserError(_nothing_usable(connection, files, config))
    step("cutting and splitting")
    for name in ("06_dataset.sql", "07_finetune.sql", "08_pretrain.sql"):
        connection.execute(statement(name))
    _check_sizes(dataset_info(connection))
    for name in ("09_sequence_macros.sql", "10_results.sql", "11_comments.sql"):
        connection.execute(statement(name))
    return given


def _nothing_usable(connection: duckdb.DuckDBPyConnection, files: str, config: DataConfig) -> str:
    first = rows_of(connection, "select file, line, reason, text from rejects order by file, line limit 1")
    if not first:
        return f"{files}: no rows"
    file, line, reason, text = first[0]
    repair = repair_of(reason, config.assay.model_dump())
    return (
        f"{file}:{line}: {reason}: {(text or '')[:200]!r}; none of the {_count(connection, 'rejects'):,} rows can be "
        f"used{f'; to repair such rows: {repair}' if repair else ''}. Expected lines of sequence<TAB>expression, the "
        "sequence with the adapters of config.yaml's assay section"
    )


def _check_sizes(info: DatasetInfo) -> None:
    held_out = info.finetune_valid_rows + info.finetune_test_rows
    if info.cut is not None and held_out >= info.promoters:
        raise UserError(
            f"dataset.finetune_valid + dataset.finetune_test = {held_out:,} rows, but there are only "
            f"{info.promoters:,} promoters; give shares instead, such as dataset.finetune_valid=0.1 "
            "dataset.finetune_test=0.1"
        )
    if info.cut is not None and info.finetune_train_rows > info.promoters - held_out:
        raise UserError(
            f"dataset.finetune_train = {info.finetune_train_rows:,} rows, but only {info.promoters - held_out:,} are "
            "not held out; give fewer, or all"
        )
    if info.cut is not None and info.pretrain_valid_rows >= info.pretrain_rows:
        raise UserError(
            f"dataset.pretrain_valid = {info.pretrain_valid_rows:,} rows, but only {info.pretrain_rows:,} "
            "promoters reach the cut; give a share instead, such as dataset.pretrain_valid=0.05"
        )


def _audit(connection: duckdb.DuckDBPyConnection) -> None:
    """Run every statement of sql/audits; a row is a fault of ours, and the dataset is not kept."""
    for path in sorted((SQL / "audits").glob("*.sql")):
        failures = rows_of(connection, path.read_text(encoding="utf-8"))[:3]
        if failures:
            raise UserError(f"audit {path.name} found {failures}; the dataset was not kept. Please report this")


def _write_parquet(connection: duckdb.DuckDBPyConnection, folder: Path) -> None:
    """Each split of finetune and pretrain, in the order of their positions, and the rejects.

    The splits of finetune are all promoters, each once (fewer where finetune_train says so); no third copy of them is
    written.
    """
    selections = {
        # Ranges of a table that is in order already; DuckDB keeps that order.
        **{f"{stage}/{split}": f"select id, sequence, expression from {stage} where split = '{split}'"
           for stage, split in (("finetune", "train"), ("finetune", "valid"), ("finetune", "test"),
                                ("pretrain", "train"), ("pretrain", "valid"))},
        "rejects": "from rejects",
    }  # fmt: skip
    for name, selection in selections.items():
        file = folder / f"{name}.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        location = str(file).replace("'", "''")
        # No dictionaries: nearly every sequence is the only one of its kind, and looking for others takes time.
        connection.execute(
            f"copy ({selection}) to '{location}' (format parquet, compression snappy, dictionary_size_limit 1)"
        )


def _carry_over(connection: duckdb.DuckDBPyConnection, target: Path) -> int:
    """Take the shards, runs and predictions of the dataset that stood there into the same dataset built again.

    Those of another dataset would join with other promoters: they stay out, and their runs are counted. So do those of
    one that another version built, whatever else it says of itself: it has another key.
    """
    key = "select key from dataset"
    try:
        with reading(target) as before:
            if rows_of(before, key) != rows_of(connection, key):
                return _count(before, "runs")
            tables = {name: before.sql(f"from {name}").to_arrow_table() for name in PRODUCTS}
    except (UserError, duckdb.CatalogException, duckdb.BinderException):  # nothing stood there, or no dataset of ours
        return 0
    for name, rows in tables.items():
        connection.register("rows_before", rows)
        connection.execute(f"insert into {name} by name from rows_before")
        connection.unregister("rows_before")
    return 0


def _count(connection: duckdb.DuckDBPyConnection, relation: str) -> int:
    ((count,),) = rows_of(connection, f"select count(*) from {relation}")
    return int(count)
