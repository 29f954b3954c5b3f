"""Contenders of build.py: the same Parquet files by polars, by pandas, and by plain full sorts in SQL.

Each reads the TSV, keeps the usable rows and orders them by a hash of seed and sequence. It cuts at the top fifth (ties
in) and writes finetune and pretrain by split, snappy-compressed. Their hashes differ, and so do the splits.

    python -m bench.dataset.build_contenders polars ROWS.tsv FOLDER
"""

import sys
from pathlib import Path

ADAPTERS = "TGCATTTTTTTCACATC", "GGTTACGGCTGTT"
USABLE = f"^{ADAPTERS[0]}[ACGTN]{{1,500}}{ADAPTERS[1]}$"
VALID, TEST = 152_786, 76_393
TOP, PRETRAIN_VALID, AT_MOST = 0.2, 0.05, 100_000


def split_sizes(rows):
    """Compute test and validation rows: those of the paper's preset, or 2 % each of a small file."""
    return (TEST, VALID) if rows > 10 * (TEST + VALID) else (rows // 50, rows // 50)


def build_polars(file, folder):
    import polars as pl

    rows = (
        pl.scan_csv(file, separator="\t", has_header=False, schema={"sequence": pl.String, "expression": pl.Float64})
        .filter(pl.col("sequence").str.contains(USABLE) & pl.col("expression").is_between(0, 17))
        .with_columns(place=pl.col("sequence").hash(0))
        .sort("place", "expression", "sequence")
        .drop("place")
        .with_row_index("id")
        .collect(engine="streaming")
    )
    test, valid = split_sizes(len(rows))
    cut = rows["expression"].top_k(int(TOP * len(rows)) + 1).min()
    top = rows.filter(pl.col("expression") >= cut)
    held = min(int(PRETRAIN_VALID * len(top)), AT_MOST)
    write_all(
        folder,
        lambda table, name: table.write_parquet(name, compression="snappy"),
        {"test": rows[:test], "valid": rows[test : test + valid], "train": rows[test + valid :]},
        {"valid": top[:held], "train": top[held:]},
    )


def build_pandas(file, folder):
    import pandas as pd

    rows = pd.read_csv(file, sep="\t", header=None, names=["sequence", "expression"], engine="pyarrow")
    rows = rows[rows["sequence"].str.fullmatch(USABLE[1:-1]) & rows["expression"].between(0, 17)]
    rows["place"] = pd.util.hash_array(rows["sequence"].to_numpy(object), categorize=False)
    rows = rows.sort_values(["place", "expression", "sequence"], ignore_index=True).drop(columns="place")
    rows.insert(0, "id", range(len(rows)))
    test, valid = split_sizes(len(rows))
    cut = rows["expression"].sort_values(ascending=False).iloc[int(TOP * len(rows))]
    top = rows[rows["expression"] >= cut]
    held = min(int(PRETRAIN_VALID * len(top)), AT_MOST)
    write_all(
        folder,
        lambda table, name: table.to_parquet(name, compression="snappy", index=False),
        {"test": rows[:test], "valid": rows[test : test + valid], "train": rows[test + valid :]},
        {"valid": top[:held], "train": top[held:]},
    )


def build_full_sorts(file, folder):
    """Build by the obvious SQL: a window function over all rows for each relation."""
    import duckdb

    connection = duckdb.connect()
    connection.execute(
        f"create table rows as select column0 as sequence, column1 as expression from read_csv('{file}', delim='\t', "
        "header=false, columns={'column0': 'VARCHAR', 'column1': 'DOUBLE'}) "
        f"where regexp_full_match(column0, '{USABLE[1:-1]}') and column1 between 0 and 17"
    )
    ((n,),) = connection.execute("select count(*) from rows").fetchall()
    test, valid = split_sizes(n)
    connection.execute(
        "create table finetune as select row_number() over (order by hash(sequence, 0), expression, sequence) - 1 "
        "as id, sequence, expression from rows"
    )
    connection.execute(
        "create table ranked as select *, row_number() over (order by expression desc, id) - 1 as rank from finetune"
    )
    ((cut,),) = connection.execute(f"select expression from ranked where rank = {int(TOP * n)}").fetchall()
    connection.execute(
        "create table pretrain as select *, row_number() over (order by id) - 1 as place from ranked "
        f"where expression >= {cut}"
    )
    ((top,),) = connection.execute("select count(*) from pretrain").fetchall()
    held = min(int(PRETRAIN_VALID * top), AT_MOST)
    columns = "select id, sequence, expression from"
    write_all(
        folder,
        lambda query, name: connection.execute(f"copy ({query} order by id) to '{name}' (format parquet)"),
        {
            "test": f"{columns} finetune where id < {test}",
            "valid": f"{columns} finetune where id between {test} and {test + valid - 1}",
            "train": f"{columns} finetune where id >= {test + valid}",
        },
        {"valid": f"{columns} pretrain where place < {held}", "train": f"{columns} pretrain where place >= {held}"},
    )


def write_all(folder, write, finetune, pretrain):
    for stage, parts in (("finetune", finetune), ("pretrain", pretrain)):
        (folder / stage).mkdir(parents=True)
        for split, part in parts.items():
            write(part, str(folder / stage / f"{split}.parquet"))


if __name__ == "__main__":
    peer, source, target = sys.argv[1:]
    {"polars": build_polars, "pandas": build_pandas, "full-sorts": build_full_sorts}[peer](source, Path(target))
