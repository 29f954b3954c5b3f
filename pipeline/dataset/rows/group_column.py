"""The column whose rows of one value lie together (dataset.group_column)."""

from pipeline.dataset.input.files import Input
from pipeline.dataset.rows.columns import BuildColumn, BuildColumns
from pipeline.dataset.rows.given_split import find_column
from pipeline.errors import UserError


def find_group_column(source: Input, columns: BuildColumns, requested: str) -> BuildColumn | None:
    """Find a requested column among the kept ones; None if none is requested.

    Raises UserError for a column that the input lacks, and for the column of sequences or of a label.
    """
    if not requested:
        return None
    column = find_column(source, requested, "dataset.group_column")
    for kept in columns.kept:
        if kept.source == column:
            return kept
    raise UserError(
        f"dataset.group_column={requested}: holds sequences or labels; expected another column; fix: name a column of "
        "genes, regions or sets"
    )
