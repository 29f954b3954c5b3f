"""Repairs of sequences that break the rules of an assay: their settings, and the reason codes that they repair."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import duckdb

from pipeline.config.schema import Assay
from pipeline.dataset.database import rows_of, statement
from pipeline.errors import UserError


class Repair(NamedTuple):
    """A setting of the assay, and its value that requests the repair. The other value is reject."""

    setting: str
    value: str
    hint: str = ""

    @property
    def override(self) -> str:
        """Format the setting as on a command line."""
        return f"assay.{self.setting}={self.value}"


REPAIRS = {
    "white_space": Repair("white_space", "strip"),
    "lower_case": Repair("lower_case", "upper"),
    "uracil": Repair("uracil", "thymine"),
    "iupac": Repair("iupac", "n"),
    "left_adapter": Repair("missing_adapters", "add", " (for bare inserts)"),
}
"""Repairs by the reason code of sql/01_rules.sql."""


def repair_of(problem: str, assay: Mapping[str, Any]) -> str:
    """Find the override that would repair rows with a problem; an empty text if there is none, or the assay has it.

    problem: the text of sequence_problem; assay: its settings.
    """
    repair = REPAIRS.get(_codes_by_text().get(problem, ""))
    if repair is None or assay[repair.setting] != "reject":
        return ""
    return repair.override + repair.hint


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
    repairs = {f"assay.{repair.setting}": repair for repair in REPAIRS.values()}
    for override in overrides:
        key, _, value = override.partition("=")
        if key not in repairs:
            raise UserError(
                f"{override}: no effect on a trained model, whose folder holds its settings; expected a repair of "
                f"sequences: {', '.join(repair.override for repair in repairs.values())}"
            )
        if value not in ("reject", repairs[key].value):
            raise UserError(f"{override}: expected {key}=reject or {repairs[key].override}")
        values[repairs[key].setting] = value
    return Assay(**values)


@cache
def _codes_by_text() -> dict[str, str]:
    """Read the reason codes of sql/01_rules.sql by their texts, which datasets and predictions hold."""
    with duckdb.connect() as connection:
        connection.execute(statement("01_rules.sql"))
        ((codes,),) = rows_of(connection, "select reason_texts()")
    return {text: code for code, text in codes.items()}
