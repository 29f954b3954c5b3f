"""Promoters that are given as they are, not in a file, held to the rules of a model's assay. Imports no torch."""

import duckdb
import pyarrow as pa

from pipeline.config import Assay
from pipeline.database import rows_of
from pipeline.errors import UserError
from pipeline.input_view import define_rules


def repaired(sequences: list[str], assay: Assay) -> pa.ChunkedArray:
    """Promoters, adapters included, as a model is given them: repaired where its assay says so.

    Raises UserError naming the first one that is no promoter of the assay, and why.
    """
    if isinstance(sequences, str):
        raise UserError("expected a list of promoters, got one string")
    column = pa.array(sequences, pa.string())
    with duckdb.connect() as connection:
        define_rules(connection, assay)
        connection.register("given", pa.table({"sequence": column}))
        bad = rows_of(
            connection,
            "select place, sequence, problem from (select row_number() over () - 1 as place, sequence, "
            "sequence_problem(repaired(sequence)) as problem from given) where problem is not null "
            "order by place limit 1",
        )
        usable = connection.sql("select repaired(sequence) as sequence from given").to_arrow_table()["sequence"]
    if bad:
        place, sequence, problem = bad[0]
        which = "the sequence" if len(sequences) == 1 else f"sequence {place} (from 0)"
        raise UserError(
            f"{which}: {problem}: {(sequence or '')[:200]!r}; expected "
            f"{assay.left_adapter}...insert...{assay.right_adapter} in letters ACGTN"
        )
    return usable
