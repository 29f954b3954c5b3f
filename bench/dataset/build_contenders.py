"""Contenders of build.py: the same Parquet files by polars, by pandas, and by plain full sorts in SQL.

Each reads the TSV, keeps the usable rows and orders them by a hash of seed and sequence. It cuts at the top fifth (ties
in) and writes one file per split of finetune, snappy-compressed, with split and position in both stages. The hashes of
the contenders differ, and so do the splits.

    python -m bench.dataset.build_contenders polars ROWS.tsv FOLDER
"""

import sys
from pathlib import Path

ADAPTERS = "TGCATTTTTTTCACATC", "GGTTACGGCTGTT"
USABLE = f"^{ADAPTERS[0]}[ACGTN]{{1,500}}{ADAPTERS[1]}$"
VALID, TEST = 152_786, 76_393
TOP, PRETRAIN_VALID, AT_MOST = 0.2, 0.05, 100_000


def ranges(rows):
    """Compute the first row of each split and the row after its last one: the paper's sizes, or 2 % of a small file."""
    test, valid = (TEST, VALID) if rows > 10 * (TEST + VALID) else (rows // 50, rows // 50)
    return {"test": (0, test), "valid": (test, test + valid), "train": (test + valid, rows)}


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
    is_top = rows["expression"] >= rows["expression"].top_k(int(TOP * len(rows)) + 1).min()
    place = is_top.cast(pl.Int64).cum_sum() - 1
    held = min(int(PRETRAIN_VALID * is_top.sum()), AT_MOST)
    rows = rows.with_columns(
        pretrain_split=pl.when(is_top & (place < held)).then(pl.lit("valid")).when(is_top).then(pl.lit("train")),
        pretrain_position=pl.when(is_top & (place < held)).then(place).when(is_top).then(place - held),
    )
    for split, (first, after) in ranges(len(rows)).items():
        part = rows[first:after].with_columns(split=pl.lit(split), position=pl.col("id") - first)
        part.write_parquet(folder / f"{split}.parquet", compression="snappy")


def build_pandas(file, folder):
    import pandas as pd

    rows = pd.read_csv(file, sep="\t", header=None, names=["sequence", "expression"], engine="pyarrow")
    rows = rows[rows["sequence"].str.fullmatch(USABLE[1:-1]) & rows["expression"].between(0, 17)]
    rows["place"] = pd.util.hash_array(rows["sequence"].to_numpy(object), categorize=False)
    rows = rows.sort_values(["place", "expression", "sequence"], ignore_index=True).drop(columns="place")
    rows.insert(0, "id", range(len(rows)))
    is_top = rows["expression"] >= rows["expression"].sort_values(ascending=False).iloc[int(TOP * len(rows))]
    place = is_top.cumsum() - 1
    held = min(int(PRETRAIN_VALID * is_top.sum()), AT_MOST)
    rows["pretrain_split"] = (place < held).map({True: "valid", False: "train"}).where(is_top)
    rows["pretrain_position"] = place.where(place < held, place - held).where(is_top).astype("Int64")
    for split, (first, after) in ranges(len(rows)).items():
        part = rows[first:after].assign(split=split, position=lambda part, first=first: part["id"] - first)
        part.to_parquet(folder / f"{split}.parquet", compression="snappy", index=False)


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
    connection.execute(
        "create table finetune as select row_number() over (order by hash(sequence, 0), expression, sequence) - 1 "
        "as id, sequence, expression from rows"
    )
    connection.execute(
        "create table ranked as select id, expression, row_number() over (order by expression desc, id) - 1 as rank "
        "from finetune"
    )
    ((cut,),) = connection.execute(f"select expression from ranked where rank = {int(TOP * n)}").fetchall()
    connection.execute(
        "create table pretrain as select id, row_number() over (order by id) - 1 as place from ranked "
        f"where expression >= {cut}"
    )
    ((top,),) = connection.execute("select count(*) from pretrain").fetchall()
    held = min(int(PRETRAIN_VALID * top), AT_MOST)
    for split, (first, after) in ranges(n).items():
        connection.execute(
            f"copy (select finetune.*, '{split}' as split, id - {first} as position, "
            f"case when place < {held} then 'valid' when place >= {held} then 'train' end as pretrain_split, "
            f"if(place < {held}, place, place - {held}) as pretrain_position "
            f"from finetune left join pretrain using (id) where id >= {first} and id < {after} order by id) "
            f"to '{folder}/{split}.parquet' (format parquet)"
        )


if __name__ == "__main__":
    peer, source, target = sys.argv[1:]
    Path(target).mkdir(parents=True)
    {"polars": build_polars, "pandas": build_pandas, "full-sorts": build_full_sorts}[peer](source, Path(target))
