"""Validate promoters by the rules of a model's assay (sql/01_rules.sql). Imports no torch."""

from collections.abc import Sequence

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config.schema import Assay
from pipeline.dataset.input.repairs import suggest_repairs
from pipeline.dataset.input.view import define_rules
from pipeline.errors import UserError
from pipeline.runtime.text import shorten

VALIDATED = "repaired(sequence) as repaired, sequence_problem(repaired(sequence)) as problem"
"""SQL columns: the sequence after the assay's repairs, and the reason why it cannot be predicted (null if valid)."""


def validate(sequences: list[str], assay: Assay) -> pa.Table:
    """Repair and check promoters in memory, adapters included: columns repaired and problem, one row per sequence."""
    if isinstance(sequences, str):
        raise UserError("expected a list of promoters, got one string")
    with duckdb.connect() as connection:
        define_rules(connection, assay)
        return validate_more(connection, sequences)


def validate_more(connection: duckdb.DuckDBPyConnection, sequences: Sequence[str | None]) -> pa.Table:
    """Repair and check promoters as `validate` does, on a connection with the rules of the assay."""
    connection.register("promoters", pa.table({"sequence": pa.array(sequences, pa.string())}))
    return connection.sql(
        f"select {VALIDATED} from (select row_number() over () as row, sequence from promoters) order by row"
    ).to_arrow_table()


def describe_wrong_base(sequence: str, repaired: str) -> str:
    """Describe the first letter of a sequence as written that is no base after repairs, such as '*' at 170, or ''."""
    wrong = set(repaired) - set("ACGTN")
    if not wrong:
        return ""
    places = (f"{base!r} at {place}" for place, base in enumerate(sequence, 1) if wrong & {base, base.upper()})
    return next(places, "")


def repaired(sequences: list[str], assay: Assay) -> pa.ChunkedArray:
    """Repair promoters, adapters included, by the assay's settings.

    Raises UserError for the first sequence that cannot be predicted, with the reason.
    """
    validated = validate(sequences, assay)
    invalid = pc.index(pc.is_valid(validated["problem"]), True).as_py()
    if invalid < 0:
        return validated["repaired"]
    problem, sequence = validated["problem"][invalid].as_py(), sequences[invalid] or ""
    which = "the sequence" if len(sequences) == 1 else f"sequence {invalid} (from 0)"
    fix = suggest_repairs({problem: [sequence]}, assay)
    place = describe_wrong_base(sequence, validated["repaired"][invalid].as_py() or "")
    found = f"{problem}{f', {place}' if place else ''}"
    raise UserError(
        f"{which}: {found}; expected {assay.left_adapter}...insert...{assay.right_adapter} in bases ACGTN, got "
        f"{shorten(sequence, 200)!r}{f'; {fix}' if fix else ''}"
    )
