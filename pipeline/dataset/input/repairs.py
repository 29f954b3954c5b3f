"""Repairs of sequences that break an assay's rules: the setting that requests each, and the problem it repairs."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import duckdb

from pipeline.config.schema import Assay
from pipeline.dataset.database import rows_of, statement
from pipeline.errors import UserError


class Repair(NamedTuple):
    """A setting of the assay, and its value that requests the repair; the other value is reject."""

    setting: str
    value: str
    hint: str = ""

    @property
    def override(self) -> str:
        """The setting as on a command line."""
        return f"assay.{self.setting}={self.value}"


REPAIRS = {
    "white_space": Repair("white_space", "strip"),
    "lower_case": Repair("lower_case", "upper"),
    "uracil": Repair("uracil", "thymine"),
    "iupac": Repair("iupac", "n"),
    "left_adapter": Repair("missing_adapters", "add", " (for bare inserts)"),
}
"""By the reason code of sql/01_rules.sql."""


def repair_of(problem: str, assay: Mapping[str, Any]) -> str:
    """The override that would repair rows with a problem; an empty text where none would, or the assay has it.

    problem: the text of sequence_problem; assay: settings, those of repairs among them.
    """
    repair = REPAIRS.get(_codes_by_text().get(problem, ""))
    if repair is None or assay[repair.setting] != "reject":
        return ""
    return repair.override + repair.hint


def remedy(problems: Iterable[str], assay: Assay) -> str:
    """The overrides that would repair some of the problems; an empty text where none would."""
    settings = assay.model_dump()
    overrides = " ".join(filter(None, (repair_of(problem, settings) for problem in problems)))
    return f"repair them with {overrides}" if overrides else ""


def with_repairs(assay: dict[str, Any], overrides: Sequence[str]) -> Assay:
    """Apply overrides such as assay.lower_case=upper to the assay of a model directory.

    Raises UserError for a setting that is no repair, which would change what the model was trained on, and for an
    unknown value.
    """
    values = dict(assay)
    repairs = {f"assay.{repair.setting}": repair for repair in REPAIRS.values()}
    for override in overrides:
        key, _, value = override.partition("=")
        if key not in repairs:
            raise UserError(
                f"{override}: has no effect on a trained model, whose folder holds its settings; only repairs of "
                f"sequences can be overridden: {', '.join(repair.override for repair in repairs.values())}"
            )
        if value not in ("reject", repairs[key].value):
            raise UserError(f"{override}: expected {key}=reject or {repairs[key].override}")
        values[repairs[key].setting] = value
    return Assay(**values)


@cache
def _codes_by_text() -> dict[str, str]:
    """The reason codes by their texts, as sql/01_rules.sql has them: datasets and predictions hold the texts."""
    with duckdb.connect() as connection:
        connection.execute(statement("01_rules.sql"))
        ((codes,),) = rows_of(connection, "select reason_texts()")
    return {text: code for code, text in codes.items()}
