"""Repairs of sequences that break an assay's rules: which setting asks for each, and which problem it mends."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pipeline.config.schema import Assay
from pipeline.errors import UserError

REPAIRS = {
    "assay.white_space": "strip",
    "assay.lower_case": "upper",
    "assay.uracil": "thymine",
    "assay.iupac": "n",
    "assay.missing_adapters": "add",
}
"""The settings, each with the value that asks for the repair. The other value is reject."""
MENDS = {
    "white space in the sequence": "assay.white_space",
    "lower-case bases": "assay.lower_case",
    "U in the sequence": "assay.uracil",
    "IUPAC codes other than ACGTN": "assay.iupac",
    "left adapter missing": "assay.missing_adapters",
}
"""What sequence_problem of sql/01_rules.sql says, and the setting that mends it."""


def repair_of(problem: str, assay: Mapping[str, Any]) -> str:
    """The setting that would repair a problem, as on a command line; an empty text where none would.

    assay: settings, those of repairs among them.
    """
    key = MENDS.get(problem)
    if key is None or assay[_field(key)] != "reject":
        return ""
    return f"{key}={REPAIRS[key]}{' (for bare inserts)' if key == 'assay.missing_adapters' else ''}"


def remedy(problems: Iterable[str], assay: Assay) -> str:
    """Which settings would repair some of the problems; an empty text where none would."""
    settings = assay.model_dump()
    found = " ".join(filter(None, (repair_of(problem, settings) for problem in problems)))
    return f"repair them with {found}" if found else ""


def with_repairs(assay: dict[str, Any], overrides: Sequence[str]) -> Assay:
    """An assay as a model's folder has it, with overrides such as assay.lower_case=upper laid over its repairs.

    Raises UserError for another setting, which would change what the model was trained on, and for another value.
    """
    values = dict(assay)
    for override in overrides:
        key, _, value = override.partition("=")
        if key not in REPAIRS:
            raise UserError(
                f"{override}: has no effect on a trained model, whose folder holds its settings; what can be given is "
                f"the repair of sequences: {', '.join(f'{name}={wanted}' for name, wanted in REPAIRS.items())}"
            )
        if value not in ("reject", REPAIRS[key]):
            raise UserError(f"{override}: expected {key}=reject or {key}={REPAIRS[key]}")
        values[_field(key)] = value
    return Assay(**values)


def _field(key: str) -> str:
    return key.removeprefix("assay.")
