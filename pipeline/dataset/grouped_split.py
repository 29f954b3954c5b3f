"""Split the dataset by clusters of near-duplicate inserts (dataset.split=grouped), each cluster into one split.

1. sql/splits/inserts.sql: the valid rows with their inserts;
2. near_duplicates/clusters.py: distinct inserts -> pairs of near-duplicates -> clusters;
3. sql/splits/grouped.sql: a split for each cluster; promoters without near-duplicates fill the splits.
"""

import duckdb
import numpy as np
import pyarrow as pa

from pipeline.dataset.database import rows_of, statement
from pipeline.errors import UserError
from pipeline.near_duplicates.clusters import find_clusters
from pipeline.near_duplicates.pairs import find_pairs


def create_grouped_promoters(
    connection: duckdb.DuckDBPyConnection, max_mismatches: int, marks: dict[str, str] | None = None
) -> int:
    """Create relations `promoters` and `near_duplicates` from view `usable`, with the settings of the connection.

    marks: SQL for the marks of further columns. Returns the number of held-out rows of a random split of the same sizes
    that would have a near-duplicate in training. Raises UserError if too few promoters without near-duplicates are left
    to fill the splits.
    """
    connection.execute(statement("splits/inserts.sql", marks))
    rows = connection.sql('select "insert", place from inserts').to_arrow_table()
    inserts = rows["insert"].combine_chunks().dictionary_encode()
    clusters = find_clusters(inserts.dictionary, max_mismatches)
    columns = {"insert": clusters.rows, "leader": clusters.leaders}
    near = pa.table({name: inserts.dictionary.take(rows) for name, rows in columns.items()})
    connection.register("near", near)
    connection.execute(statement("splits/grouped.sql", marks))
    connection.unregister("near")
    ((test, valid, test_size, valid_size, train),) = rows_of(connection, statement("splits/grouped_sizes.sql"))
    if (test, valid) != (test_size, valid_size):
        raise UserError(
            f"dataset.split: too few promoters are in no cluster of near-duplicates; expected {test_size:,} test and "
            f"{valid_size:,} validation rows, got {test:,} and {valid:,}; fix: smaller sizes, a lower "
            "dataset.max_mismatches or dataset.split=random"
        )
    return _count_leaks(inserts, rows["place"].to_numpy(), test + valid, train, max_mismatches)


def _count_leaks(
    inserts: pa.DictionaryArray, places: np.ndarray, held_out: int, train: int, max_mismatches: int
) -> int:
    """Count held-out rows of a random split with an equal or near-duplicate insert in training.

    places: hashes that give the random order, (rows,) uint64. The first `held_out` rows are held out, the next `train`
    rows are training rows.
    """
    codes = inserts.indices.to_numpy()[np.argsort(places, kind="stable")]
    splits = codes[:held_out], codes[held_out : held_out + train]
    held, trained = (np.bincount(split, minlength=len(inserts.dictionary)) for split in splits)
    leaks = (held > 0) & (trained > 0)
    for i, j in find_pairs(inserts.dictionary, max_mismatches):
        for a, b in ((i, j), (j, i)):
            leaks[a[(held[a] > 0) & (trained[b] > 0)]] = True
    return int(held[leaks].sum())
