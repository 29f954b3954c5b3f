"""split: grouped. Near-duplicate inserts form groups, and a group lies in one split.

1. the usable rows with their inserts, as a temporary table;
2. their distinct inserts -> pairs of near-duplicates -> groups (groups.py);
3. sql/splits/grouped.sql gives each group a split and fills up with promoters that stand alone.
"""

import duckdb
import numpy as np
import pyarrow as pa

from pipeline.dataset.database import rows_of, statement
from pipeline.errors import UserError
from pipeline.near_duplicates.clusters import near_duplicate_groups
from pipeline.near_duplicates.pairs import pair_chunks


def grouped_promoters(connection: duckdb.DuckDBPyConnection, max_mismatches: int) -> int:
    """Make `promoters` and `near_duplicates` from view `usable`; the settings are variables of the connection.

    Returns how many held-out rows of a random split of the same sizes would have a near-duplicate in training.
    Raises UserError where the groups leave too few single promoters to give the splits their sizes.
    """
    connection.execute(statement("splits/inserts.sql"))
    rows = connection.sql('select "insert", place from inserts').to_arrow_table()
    inserts = rows["insert"].combine_chunks().dictionary_encode()
    groups = near_duplicate_groups(inserts.dictionary, max_mismatches)
    near = pa.table({"insert": inserts.dictionary.take(groups.rows), "leader": inserts.dictionary.take(groups.leaders)})
    connection.register("near_found", near)
    connection.execute("create or replace temp table near as from near_found")
    connection.unregister("near_found")
    connection.execute(statement("splits/grouped.sql"))
    ((test, valid, test_asked, valid_asked, train),) = rows_of(connection, statement("splits/grouped_sizes.sql"))
    if (test, valid) != (test_asked, valid_asked):
        raise UserError(
            f"the groups of near-duplicates leave {test:,} test and {valid:,} validation rows instead of "
            f"{test_asked:,} and {valid_asked:,}: too few promoters stand alone; take smaller sizes, a lower "
            "dataset.max_mismatches or dataset.split=random"
        )
    return _across(inserts, rows["place"].to_numpy(), test + valid, train, max_mismatches)


def _across(inserts: pa.DictionaryArray, places: np.ndarray, held_out: int, train: int, max_mismatches: int) -> int:
    """Rows among the first `held_out` of the random order that have a near-duplicate (or equal) insert among the
    `train` rows behind them."""
    order = np.argsort(places, kind="stable")
    codes = inserts.indices.to_numpy()
    distinct = len(inserts.dictionary)
    parts = order[:held_out], order[held_out : held_out + train]
    held, trained = (np.bincount(codes[rows], minlength=distinct) for rows in parts)
    leaks = (held > 0) & (trained > 0)
    for i, j in pair_chunks(inserts.dictionary, max_mismatches):
        for a, b in ((i, j), (j, i)):
            leaks[a[(held[a] > 0) & (trained[b] > 0)]] = True
    return int(held[leaks].sum())
