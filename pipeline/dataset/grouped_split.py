"""Split the dataset by groups of near-duplicate inserts (split: grouped): a group is in one split.

1. sql/splits/inserts.sql: the usable rows with their inserts;
2. near_duplicates/clusters.py: distinct inserts -> pairs of near-duplicates -> clusters, the groups;
3. sql/splits/grouped.sql: a split for each group, filled up with promoters that are in no group.
"""

import duckdb
import numpy as np
import pyarrow as pa

from pipeline.dataset.database import rows_of, statement
from pipeline.errors import UserError
from pipeline.near_duplicates.clusters import near_duplicate_clusters
from pipeline.near_duplicates.pairs import pair_chunks


def grouped_promoters(connection: duckdb.DuckDBPyConnection, max_mismatches: int) -> int:
    """Create `promoters` and `near_duplicates` from view `usable`; the settings are variables of the connection.

    Returns the number of held-out rows of a random split of these sizes that would have a near-duplicate in training.
    Raises UserError where there are too few single promoters to fill the splits.
    """
    connection.execute(statement("splits/inserts.sql"))
    rows = connection.sql('select "insert", place from inserts').to_arrow_table()
    inserts = rows["insert"].combine_chunks().dictionary_encode()
    groups = near_duplicate_clusters(inserts.dictionary, max_mismatches)
    near = pa.table({"insert": inserts.dictionary.take(groups.rows), "leader": inserts.dictionary.take(groups.leaders)})
    connection.register("near_found", near)
    connection.execute("create or replace temp table near as from near_found")
    connection.unregister("near_found")
    connection.execute(statement("splits/grouped.sql"))
    ((test, valid, test_size, valid_size, train),) = rows_of(connection, statement("splits/grouped_sizes.sql"))
    if (test, valid) != (test_size, valid_size):
        raise UserError(
            f"the groups of near-duplicates leave {test:,} test and {valid:,} validation rows instead of "
            f"{test_size:,} and {valid_size:,}: too few promoters are in no group; fix: smaller sizes, a lower "
            "dataset.max_mismatches or dataset.split=random"
        )
    return _leaks(inserts, rows["place"].to_numpy(), test + valid, train, max_mismatches)


def _leaks(inserts: pa.DictionaryArray, places: np.ndarray, held_out: int, train: int, max_mismatches: int) -> int:
    """Count rows among the first `held_out` of the random order that have an equal or near-duplicate insert among the
    next `train` rows."""
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
