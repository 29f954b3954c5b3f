"""The column whose rows of one value lie together (dataset.group_column)."""

from pipeline.dataset.input.files import Input
from pipeline.dataset.rows.columns import BuildColumns
from pipeline.dataset.rows.given_split import find_column
from pipeline.errors import UserError


def group_code(source: Input, columns: BuildColumns, requested: str) -> str:
    """Return the name of a requested column in view `usable`; "" if none is requested.

    Raises UserError for a column that the input lacks, and for the column of sequences or of a label.
    """
    if not requested:
        return ""
    column = find_column(source, requested, "dataset.group_column")
    for kept in columns.kept:
        if kept.source == column:
            return kept.code
    raise UserError(
        f"dataset.group_column={requested}: holds sequences or labels; expected another column; fix: name a column of "
        "genes, regions or sets"
    )
