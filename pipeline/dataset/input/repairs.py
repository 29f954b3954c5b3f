"""Repairs of sequences that break the rules of an assay: their settings, and the hints that have been tried."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import duckdb
import pyarrow as pa

from pipeline.config.schema import Assay
from pipeline.dataset.database import rows_of
from pipeline.dataset.input.view import define_rules
from pipeline.errors import UserError
from pipeline.runtime.text import format_count

ADD_ADAPTERS = "assay.missing_adapters=add"
MISMATCHES = tuple(f"assay.adapter_mismatches={count}" for count in (1, 2, 3))
REPAIRS: dict[str, tuple[str, ...]] = {
    "white_space": ("assay.white_space=strip",),
    "lower_case": ("assay.lower_case=upper",),
    "uracil": ("assay.uracil=thymine",),
    "iupac": ("assay.iupac=n",),
    # Adapters with mismatches first: a sequence that has them is no bare insert.
    "left_adapter": (*MISMATCHES, ADD_ADAPTERS),
    "right_adapter": MISMATCHES,
}
"""The overrides that may repair a sequence, by the reason code of sql/01_rules.sql, in the order of the trials."""
TRIAL_ROWS = 1000
"""Rejected rows of one reason on which a hint is tried."""
MOST_MISMATCHES = 5


def find_repairs(sequences: Sequence[str | None], assay: Assay) -> list[str]:
    """Find the overrides that make most of some invalid sequences valid, by trying them; empty if none helps.

    One repair may need another: RNA without adapters needs assay.uracil=thymine and assay.missing_adapters=add.
    """
    best, overrides, most_valid = list[str](), list[str](), 0
    with duckdb.connect() as connection:
        connection.register("rejected", pa.table({"sequence": pa.array(sequences[:TRIAL_ROWS], pa.string())}))
        codes = _codes(connection, assay)
        while codes:
            code = max(codes, key=lambda code: (code != "", codes[code]))
            for override in REPAIRS.get(code, ()):
                tried = _apply([*overrides, override], assay)
                if 2 * _codes(connection, tried).get(code, 0) <= codes[code]:
                    overrides.append(override)
                    break
            else:
                break
            codes = _codes(connection, tried)
            if codes.get("", 0) > most_valid:
                best, most_valid = list(overrides), codes[""]
    return list({override.partition("=")[0]: override for override in best}.values())


def _codes(connection: duckdb.DuckDBPyConnection, assay: Assay) -> dict[str, int]:
    """Count the sequences by reason code; an empty code for valid ones."""
    define_rules(connection, assay)
    # Repaired in a step of its own: planning nested macros takes longer than running them.
    repaired = "with steps as materialized (select repaired(sequence) as sequence from rejected)"
    counts = "select coalesce(sequence_code(sequence), ''), count(*) from steps group by 1 order by 1"
    return dict(rows_of(connection, f"{repaired} {counts}"))


def _apply(overrides: Iterable[str], assay: Assay) -> Assay:
    return with_repairs(assay.model_dump(), list(overrides))


def suggest_repairs(examples: Mapping[str, Sequence[str | None]], assay: Assay) -> str:
    """Suggest how to make invalid sequences valid for a trained model; an empty text if nothing helps.

    examples: sequences by the reason why they are invalid; they are tried in this order.
    """
    return describe_hint(collect_repairs(examples, assay), examples, assay)


def collect_repairs(examples: Mapping[str, Sequence[str | None]], assay: Assay) -> list[str]:
    """Collect the overrides that repair invalid sequences. examples: see suggest_repairs."""
    hints = dict[str, str]()
    for sequences in examples.values():
        for override in find_repairs(sequences, assay):
            key = override.partition("=")[0]
            hints[key] = max(hints.get(key, ""), override)  # the larger number of mismatches
    return list(hints.values())


def describe_hint(repairs: Sequence[str], examples: Mapping[str, Sequence[str | None]], assay: Assay) -> str:
    """Describe the overrides of collect_repairs, and the limit that inserts are too long for."""
    parts = []
    if repairs:
        other = f"; {assay.name}s of another assay need a model of that assay" * (ADD_ADAPTERS in repairs)
        parts.append(f"repair them with {describe_repairs(repairs)}{other}")
    if longest := longest_insert([sequence for each in examples.values() for sequence in each], assay):
        parts.append(
            f"this model reads inserts of at most {format_count(assay.max_insert, 'base')}, and the longest has "
            f"{longest:,}: shorten them, or use a model trained with assay.max_insert={longest}"
        )
    return "; ".join(parts)


def longest_insert(sequences: Sequence[str | None], assay: Assay) -> int:
    """Return the length of the longest insert that is too long, in bases; 0 if none is invalid for this reason."""
    if all(len(sequence or "") <= assay.max_insert for sequence in sequences):
        return 0
    with duckdb.connect() as connection:
        connection.register("rejected", pa.table({"sequence": pa.array(sequences, pa.string())}))
        define_rules(connection, assay)
        ((longest,),) = rows_of(
            connection,
            "with steps as materialized (select repaired(sequence) as sequence from rejected) "
            "select max(strlen(sequence)) from steps where sequence_code(sequence) = 'long_insert'",
        )
    return longest - len(assay.left_adapter) - len(assay.right_adapter) if longest else 0


def describe_repairs(overrides: Iterable[str]) -> str:
    """Join overrides for a message."""
    notes = {ADD_ADAPTERS: " (for bare inserts of this assay)"}
    return " ".join(override + notes.get(override, "") for override in overrides)


def with_repairs(assay: Mapping[str, Any], overrides: Sequence[str]) -> Assay:
    """Apply overrides such as assay.lower_case=upper to the assay of a model directory.

    Raises UserError for any other setting, which is fixed by the training of the model, and for an unknown value.
    """
    values = dict(assay)
    repairs = {override.partition("=")[0]: override for options in REPAIRS.values() for override in options}
    for override in overrides:
        key, _, value = override.partition("=")
        if key not in repairs:
            raise UserError(
                f"{override}: has no effect on a trained model, whose folder holds its settings; expected a repair of "
                f"sequences: {', '.join(repairs.values())}"
            )
        name = key.removeprefix("assay.")
        if name == "adapter_mismatches":
            if value not in map(str, range(MOST_MISMATCHES + 1)):
                raise UserError(f"{override}: expected a number from 0 to {MOST_MISMATCHES}")
            values[name] = int(value)
        elif override in (f"{key}=reject", repairs[key]):
            values[name] = value
        else:
            raise UserError(f"{override}: expected {key}=reject or {repairs[key]}")
    return Assay.model_validate(values)
