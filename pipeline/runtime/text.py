"""Numbers as text, for messages and pages."""

from collections.abc import Sequence


def format_count(n: int, one: str, many: str = "") -> str:
    """Format a count with its noun, such as 1 row or 2 rows. many: an irregular plural."""
    return f"{n:,} {one}" if n == 1 else f"{n:,} {many or f'{one}s'}"


def format_interval(value: float, interval: Sequence[float] | None) -> str:
    """Format a score with its interval, such as 0.7012 (0.6950 to 0.7071)."""
    return f"{value:.4f}" + (f" ({interval[0]:.4f} to {interval[1]:.4f})" if interval else "")
