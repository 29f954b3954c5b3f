"""Promoters that are given as they are, not in a file, held to the rules of a model's assay. Imports no torch."""

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config.schema import Assay
from pipeline.dataset.input_view import define_rules
from pipeline.dataset.repairs import remedy
from pipeline.errors import UserError


def checked(sequences: list[str], assay: Assay) -> pa.Table:
    """Promoters, adapters included, held to the rules: repaired, and problem (null for a promoter of the assay)."""
    if isinstance(sequences, str):
        raise UserError("expected a list of promoters, got one string")
    with duckdb.connect() as connection:
        define_rules(connection, assay)
        connection.register("given", pa.table({"sequence": pa.array(sequences, pa.string())}))
        return connection.sql(
            "select repaired(sequence) as repaired, sequence_problem(repaired(sequence)) as problem "
            "from (select row_number() over () as place, sequence from given) order by place"
        ).to_arrow_table()


def repaired(sequences: list[str], assay: Assay) -> pa.ChunkedArray:
    """Promoters, adapters included, as a model is given them: repaired where its assay says so.

    Raises UserError naming the first one that is no promoter of the assay, and why.
    """
    found = checked(sequences, assay)
    bad = pc.index(pc.is_valid(found["problem"]), True).as_py()
    if bad >= 0:
        problem, sequence = found["problem"][bad].as_py(), sequences[bad] or ""
        which = "the sequence" if len(sequences) == 1 else f"sequence {bad} (from 0)"
        mend = remedy([problem], assay)
        raise UserError(
            f"{which}: {problem}: {sequence[:200]!r}; expected "
            f"{assay.left_adapter}...insert...{assay.right_adapter} in letters ACGTN{f'; {mend}' if mend else ''}"
        )
    return found["repaired"]
