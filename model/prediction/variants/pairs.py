"""Validate pairs of reference and alternative sequences by the rules of a model's assay."""

from collections.abc import Sequence
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from model.prediction.validate import describe_wrong_base, validate_more
from model.prediction.variants.alleles import VariantError

REPAIRED_AWAY = "repairs of the sequence remove the variant"


@dataclass(frozen=True)
class CheckedPairs:
    """Pairs after repairs, string (rows,) each.

    problems: why a pair cannot be predicted, or None; faults: the sequence as written that has the problem; places:
    where, for problems of alleles and alternatives.
    """

    references: pa.Array
    alternatives: pa.Array
    problems: list[str | None]
    faults: list[str]
    places: list[str]


def check_pairs(
    connection: duckdb.DuckDBPyConnection, references: Sequence[str], alternatives: Sequence[str | VariantError]
) -> CheckedPairs:
    """Repair and check pairs on a connection with the rules of the assay (define_rules).

    alternatives: the error instead of a sequence if the variant cannot be applied.
    """
    written = [None if isinstance(alternative, VariantError) else alternative for alternative in alternatives]
    checked = validate_more(connection, [*references, *written])  # in one query, which takes long to plan
    repaired, codes = checked["repaired"].combine_chunks(), checked["problem"].to_pylist()
    count = len(references)
    pairs = CheckedPairs(repaired.slice(0, count), repaired.slice(count), [], list(references), [""] * count)
    sides = pairs.references.to_pylist(), pairs.alternatives.to_pylist(), codes[:count], codes[count:]
    for row, (alternative, one, other, problem, other_problem) in enumerate(zip(alternatives, *sides, strict=True)):
        text = None
        if problem is not None:
            text = f"reference: {problem}"
        elif isinstance(alternative, VariantError):
            text, pairs.places[row] = alternative.reason, alternative.place
        elif other_problem is not None:
            text, pairs.faults[row] = f"alternative: {other_problem}", alternative
            pairs.places[row] = describe_wrong_base(alternative, other)
        elif one == other and references[row].upper() != alternative.upper():
            text, pairs.faults[row] = REPAIRED_AWAY, alternative
        pairs.problems.append(text)
    return pairs
