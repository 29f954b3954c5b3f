"""Repairs of sequences that break the rules of an assay: their settings, and the reason codes that they repair."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import duckdb

from pipeline.config.schema import Assay
from pipeline.dataset.database import rows_of, statement
from pipeline.errors import UserError

REPAIRS = {
    "white_space": "assay.white_space=strip",
    "lower_case": "assay.lower_case=upper",
    "uracil": "assay.uracil=thymine",
    "iupac": "assay.iupac=n",
    "left_adapter": "assay.missing_adapters=add",
}
"""The override that requests a repair, by the reason code of sql/01_rules.sql. The other value is reject."""


def repair_of(problem: str, assay: Mapping[str, Any]) -> str:
    """Find the override that would repair rows with a problem; an empty text if there is none, or the assay has it.

    problem: the text of sequence_problem; assay: its settings.
    """
    override = REPAIRS.get(_codes_by_text().get(problem, ""), "")
    setting = override.removeprefix("assay.").partition("=")[0]
    if not override or assay[setting] != "reject":
        return ""
    return f"{override} (for bare inserts)" if setting == "missing_adapters" else override


def remedy(problems: Iterable[str], assay: Assay) -> str:
    """List the overrides that would repair some of the problems; an empty text if there are none."""
    settings = assay.model_dump()
    overrides = " ".join(filter(None, (repair_of(problem, settings) for problem in problems)))
    return f"repair them with {overrides}" if overrides else ""


def with_repairs(assay: dict[str, Any], overrides: Sequence[str]) -> Assay:
    """Apply overrides such as assay.lower_case=upper to the assay of a model directory.

    Raises UserError for any other setting, which is fixed by the training of the model, and for an unknown value.
    """
    values = dict(assay)
    repairs = {override.partition("=")[0]: override for override in REPAIRS.values()}
    for override in overrides:
        key, _, value = override.partition("=")
        if key not in repairs:
            raise UserError(
                f"{override}: has no effect on a trained model, whose folder holds its settings; expected a repair of "
                f"sequences: {', '.join(repairs.values())}"
            )
        if override not in (f"{key}=reject", repairs[key]):
            raise UserError(f"{override}: expected {key}=reject or {repairs[key]}")
        values[key.removeprefix("assay.")] = value
    return Assay(**values)


@cache
def _codes_by_text() -> dict[str, str]:
    """Read the reason codes of sql/01_rules.sql by their texts, which datasets and predictions hold."""
    with duckdb.connect() as connection:
        connection.execute(statement("01_rules.sql"))
        ((codes,),) = rows_of(connection, "select reason_texts()")
    return {text: code for code, text in codes.items()}
