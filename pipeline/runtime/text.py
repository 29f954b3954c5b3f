"""Format numbers for people."""


def counted(n: int, one: str, many: str = "") -> str:
    """1 row, 2 rows."""
    return f"{n:,} {one}" if n == 1 else f"{n:,} {many or f'{one}s'}"
