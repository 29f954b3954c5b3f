"""Names of files."""

from pipeline.errors import UserError


def expect_utf8_name(name: str) -> None:
    """Raise UserError for a file name that is not UTF-8: DuckDB and JSON cannot hold it."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise UserError(f"{name!r}: the file name is not UTF-8; fix: rename the file or folder") from None
