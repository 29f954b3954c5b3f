"""The command that a page names: `explain` with the page's model and options, which writes a table."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from model.prediction.variants.columns import VariantColumns
from pipeline.dataset.input.columns import Columns
from pipeline.runtime.text import option_words

SEQUENCE = "SEQUENCE"
"""Placeholder of a single sequence, which the page shows."""


def table_command(
    model: Path,
    inputs: Sequence[str] = (SEQUENCE,),
    columns: Columns | None = None,
    variants: VariantColumns | None = None,
    label: str | None = None,
    motifs: Path | None = None,
    overrides: Sequence[str] = (),
) -> str:
    """Format the command that writes effects.tsv, with all options that change its content. For all see ExplainRequest.

    inputs: file names as given, or the placeholder SEQUENCE.
    """
    columns, chosen = columns or Columns(), variants or VariantColumns()
    given = option_words(
        {
            "--model": model,
            "--label": label,
            "--motifs": motifs,
            "--sequence-column": columns.sequence or chosen.sequence,
            "--name-column": columns.name,
            "--ref-column": chosen.reference,
            "--alt-column": chosen.alternative,
            "--position-column": chosen.position,
            "--first-position": chosen.first_position,
        }
    )
    kind = [] if variants is None else ["--variants"]
    return shlex.join(["promoter-bert", "explain", *kind, *inputs, *given, *overrides, "-o", "effects.tsv"])
