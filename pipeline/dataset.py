"""Rows in files -> dataset.duckdb and Parquet beside it, by the statements in sql/.

1. the rules for rows and the input view (text or Parquet);
2. promoters in random order, rejects with reasons, the cut and the splits;
3. the audits, each of which must return no row;
4. Parquet; then both are renamed into place.
"""

import glob
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import duckdb

from pipeline.atomic import flush_to_disk, replace_folder
from pipeline.config import Assay, Config
from pipeline.database import SQL, DatasetInfo, dataset_info, explain, reading, rows_of, statement
from pipeline.errors import UserError

TEXT_SUFFIXES = (".tsv", ".txt", ".tsv.gz", ".txt.gz")
STORAGE_VERSION = "v1.2.0"
"""The oldest DuckDB that can open the file."""
PRODUCTS = ("shards", "records", "runs", "metrics", "predictions")
"""The relations of 09_products.sql."""
STEPS = 4
"""How often a build says what it does now."""
KNOWN_HASH = ("ACGT", 7, 17626680035712261508)
"""DuckDB's hash is its own affair: splits are the same everywhere only as long as it is, so it is checked."""


@dataclass(frozen=True)
class Built:
    """What `build` made."""

    dataset: str
    parquet: str
    info: DatasetInfo
    rejects: dict[str, int]
    """Rows by reason."""
    held_out_pretrained: int
    """Promoters held out from fine-tuning that are in pretraining's train split."""
    runs_left_out: int
    """Runs that the dataset of this name held before, trained on other rows or splits."""

    def as_dict(self) -> dict[str, Any]:
        """For --json; the flanks left out."""
        info = {k: v for k, v in asdict(self.info).items() if k not in ("upstream", "downstream")}
        return {"dataset": self.dataset, "parquet": self.parquet, **info,
            "held_out_pretrained": self.held_out_pretrained, "runs_left_out": self.runs_left_out,
            "rejects": self.rejects}  # fmt: skip


def input_files(names: list[str]) -> list[str]:
    """The files that names and glob patterns stand for; all text or all Parquet, none empty."""
    files = []
    for name in names:
        is_pattern = glob.has_magic(name) and not Path(name).exists()
        matches = sorted(glob.glob(name)) if is_pattern else [name]  # noqa: PTH207 (Path.glob takes no absolute one)
        if not matches:
            raise UserError(f"{name}: no file matches")
        files += matches
    seen: set[Path] = set()
    for file in files:
        path = Path(file)
        if path.resolve() in seen:
            raise UserError(f"{file}: named twice; its rows would be, too")
        seen.add(path.resolve())
        if not path.is_file():
            raise UserError(f"{file}: no such file")
        if not is_parquet(file) and not file.endswith(TEXT_SUFFIXES):
            raise UserError(f"{file}: expected a name ending in {', '.join(TEXT_SUFFIXES)} or .parquet")
        if path.stat().st_size == 0:
            raise UserError(f"{file}: the file is empty")
    if len({is_parquet(file) for file in files}) > 1:
        raise UserError("text and Parquet files together: build from one kind, or convert one of them first")
    return files


def is_parquet(file: str) -> bool:
    """By its name."""
    return file.endswith(".parquet")


def define_input(connection: duckdb.DuckDBPyConnection, assay: Assay, files: list[str], labelled: bool = True) -> None:
    """Create the rules for rows and view `input` (file, text, fields, sequence, expression) on a connection."""
    define_rules(connection, assay)
    set_variables(connection, {"input_files": files})
    if is_parquet(files[0]):
        for file in files:
            _check_columns(connection, file, ("sequence", "expression") if labelled else ("sequence",))
        connection.execute(statement("02_input_parquet.sql" if labelled else "02_input_parquet_unlabelled.sql"))
    else:
        connection.execute(statement("02_input_text.sql"))


def define_rules(connection: duckdb.DuckDBPyConnection, assay: Assay) -> None:
    """Create the rules for rows of an assay on a connection: sequence_problem(sequence) and the others."""
    set_variables(connection, assay.model_dump(exclude={"flank"}))
    connection.execute(statement("01_rules.sql"))


def set_variables(connection: duckdb.DuckDBPyConnection, values: dict[str, Any]) -> None:
    """What the statements of sql/ read with getvariable."""
    for name, value in values.items():
        connection.execute(f"set variable {name} = ?", [value])


def build(
    names: list[str],
    config: Config,
    *,
    threads: int | None = None,
    memory_limit: str | None = None,
    step: Callable[[str], None] = lambda _: None,
) -> Built:
    """Build the dataset that `config.dataset.path` names from files. `step` is told what is being done.

    Every input row ends in promoters or in rejects. What stood at that path stays whole until the new
    dataset is. Raises UserError for input that cannot be used.
    """
    files = input_files(names)
    target = Path(config.dataset.path)
    target.parent.mkdir(parents=True, exist_ok=True)
    with _working_folder(target) as folder:
        database = folder / target.name
        connection = duckdb.connect()
        try:
            _set_up(connection, database, folder, threads, memory_limit)
            info = _run(connection, config, files, step)
            step("auditing")
            _audit(connection)
            rejects = dict(
                connection.execute(
                    "select reason, count(*) from rejects group by reason order by count(*) desc, reason"
                ).fetchall()
            )
            held_out = _count(connection, "pretrain semi join (from finetune where split <> 'train') using (id) "
                                          "where split = 'train'")  # fmt: skip
            left_out = _carry_over(connection, target, info)
            step("writing Parquet")
            _write_parquet(connection, folder / "parquet")
            step("")
        except duckdb.Error as error:
            raise explain(error) from None
        finally:
            connection.close()
        parquet = target.with_suffix(".parquet")
        flush_to_disk(database)
        database.replace(target)
        replace_folder(folder / "parquet", parquet)
    return Built(str(target), str(parquet), info, rejects, held_out, left_out)


@contextmanager
def _working_folder(target: Path) -> Iterator[Path]:
    """A folder beside the target that is gone afterwards, whatever happens."""
    folder = target.with_name(f".{target.name}.{os.getpid()}.partial")
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


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
        connection.execute("set memory_limit = ?", [memory_limit])
    location = str(database).replace("'", "''")
    connection.execute(f"attach '{location}' as dataset (storage_version '{STORAGE_VERSION}')")
    connection.execute("use dataset")


def _run(
    connection: duckdb.DuckDBPyConnection, config: Config, files: list[str], step: Callable[[str], None]
) -> DatasetInfo:
    """The numbered statements, in order."""
    define_input(connection, config.assay, files)
    set_variables(connection, config.dataset.model_dump(exclude={"path"}))
    step(f"reading {', '.join(files)}")
    connection.execute(statement("03_promoters.sql"))
    promoters = _count(connection, "promoters")
    # Where every row was used, looking for rejects would read and check the whole input again.
    anything = "" if _count(connection, "input") > promoters else " limit 0"
    connection.execute(statement("04_rejects.sql").rstrip().rstrip(";") + anything)
    if promoters == 0:
        raise UserError(_nothing_usable(connection, files))
    step("cutting and splitting")
    for name in ("05_dataset.sql", "06_finetune.sql", "07_pretrain.sql"):
        connection.execute(statement(name))
    info = dataset_info(connection)
    _check_sizes(info)
    for name in ("08_sequence_macros.sql", "09_products.sql", "10_comments.sql"):
        connection.execute(statement(name))
    return info


def _check_columns(connection: duckdb.DuckDBPyConnection, file: str, wanted: tuple[str, ...]) -> None:
    try:
        found = [row[0] for row in connection.execute("describe from read_parquet(?)", [file]).fetchall()]
    except duckdb.Error as error:
        raise UserError(f"{file}: cannot be read as Parquet: {explain(error)}") from None
    missing = [name for name in wanted if name not in found]
    if missing:
        raise UserError(f"{file}: no column {' and no column '.join(missing)}; it has {', '.join(found)}")


def _nothing_usable(connection: duckdb.DuckDBPyConnection, files: list[str]) -> str:
    first = rows_of(connection, "select file, line, reason, text from rejects order by file, line limit 1")
    if not first:
        return f"{', '.join(files)}: no rows"
    file, line, reason, text = first[0]
    return (
        f"{file}:{line}: {reason}: {text[:200]!r}; none of the {_count(connection, 'rejects'):,} rows can be used. "
        "Expected lines of sequence<TAB>expression, the sequence with the adapters of config.yaml's assay section"
    )


def _check_sizes(info: DatasetInfo) -> None:
    held_out = info.finetune_valid_rows + info.finetune_test_rows
    if held_out >= info.promoters:
        raise UserError(
            f"dataset.finetune_valid + dataset.finetune_test = {held_out:,} rows, but there are only "
            f"{info.promoters:,} promoters; give shares instead, such as dataset.finetune_valid=0.1 "
            "dataset.finetune_test=0.1"
        )
    if info.pretrain_valid_rows >= info.pretrain_rows:
        raise UserError(
            f"dataset.pretrain_valid = {info.pretrain_valid_rows:,} rows, but only {info.pretrain_rows:,} "
            "promoters reach the cut; give a share instead, such as dataset.pretrain_valid=0.05"
        )


def _audit(connection: duckdb.DuckDBPyConnection) -> None:
    """Run every statement of sql/audits; a row is a fault of ours, and the dataset is not kept."""
    for path in sorted((SQL / "audits").glob("*.sql")):
        failures = connection.execute(path.read_text(encoding="utf-8")).fetchmany(3)
        if failures:
            raise UserError(f"audit {path.name} found {failures}; the dataset was not kept. Please report this")


def _write_parquet(connection: duckdb.DuckDBPyConnection, folder: Path) -> None:
    """promoters, rejects, and each split of pretrain and finetune, in the order of their positions."""
    selections = {
        "promoters": "from promoters",
        "rejects": "from rejects",
        "pretrain/train": "from pretrain where split = 'train' order by position",
        "pretrain/valid": "from pretrain where split = 'valid' order by position",
        # These three are ranges of a table that is in order already; DuckDB keeps that order.
        "finetune/train": "from finetune where split = 'train'",
        "finetune/valid": "from finetune where split = 'valid'",
        "finetune/test": "from finetune where split = 'test'",
    }
    for name, selection in selections.items():
        file = folder / f"{name}.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        location = str(file).replace("'", "''")
        connection.execute(f"copy ({selection}) to '{location}' (format parquet, compression snappy)")


def _carry_over(connection: duckdb.DuckDBPyConnection, target: Path, info: DatasetInfo) -> int:
    """Take the shards, runs and predictions of the dataset that stood there into the same dataset built again.

    Those of another dataset would join with other promoters: they stay out, and their runs are counted.
    """
    try:
        with reading(target) as before:
            same = dataset_info(before).key == info.key
            tables = {name: before.sql(f"from {name}").to_arrow_table() for name in PRODUCTS}
    except (UserError, duckdb.CatalogException):  # nothing stood there, or no dataset of ours
        return 0
    if not same:
        return len(tables["runs"])
    for name, rows in tables.items():
        connection.register("rows_before", rows)
        connection.execute(f"insert into {name} by name from rows_before")
        connection.unregister("rows_before")
    return 0


def _count(connection: duckdb.DuckDBPyConnection, relation: str) -> int:
    ((count,),) = rows_of(connection, f"select count(*) from {relation}")
    return int(count)
