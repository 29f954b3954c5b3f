"""Format numbers for messages."""


def format_count(n: int, one: str, many: str = "") -> str:
    """Format a count with its noun: 1 row, 2 rows. many: an irregular plural."""
    return f"{n:,} {one}" if n == 1 else f"{n:,} {many or f'{one}s'}"
