"""Numbers and nouns as text, for messages and pages."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

_WORD = re.compile(r"\b(?:(?P<article>[Aa]) )?(?P<first>[Pp])romoter(?=s?\b)(?![-_])")


def format_count(n: int, one: str, many: str = "") -> str:
    """Format a count with its noun, such as 1 row or 2 rows. many: an irregular plural."""
    return f"{n:,} {one}" if n == 1 else f"{n:,} {many or f'{one}s'}"


def option_words(options: Mapping[str, object]) -> list[str]:
    """List the words of the options of a command that have a value: --name, value. None: no value."""
    return [word for name, value in options.items() if value is not None for word in (name, str(value))]


def plain_number(value: Any) -> Any:
    """Convert a whole number to an integer, such as 12.0 of a setting to 12; other values stay."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def name_sequences(text: str, name: str) -> str:
    """Write the word of an assay, such as enhancer, for `promoter` in a text of this project; the article follows.

    name: assay.name. Give it texts before names of files and runs are inserted: it would change them, too.
    """

    def replace(match: re.Match[str]) -> str:
        article = match["article"] and f"{match['article']}{'n' if name[0].lower() in 'aeio' else ''} "
        return f"{article or ''}{name[0].upper() if match['first'] == 'P' else name[0]}{name[1:]}"

    return _WORD.sub(replace, text)


def shorten(text: str, characters: int) -> str:
    """Cut a text to a number of characters, with an ellipsis at the end."""
    return text if len(text) <= characters else f"{text[: characters - 1]}…"


def format_interval(value: float, interval: Sequence[float] | None, digits: int = 4) -> str:
    """Format a score with its interval, such as 0.7012 (0.6950 to 0.7071). digits: after the decimal point."""
    return f"{value:.{digits}f}" + (f" ({interval[0]:.{digits}f} to {interval[1]:.{digits}f})" if interval else "")


def format_duration(seconds: float) -> str:
    """Format a duration in one unit, such as 34 s, 25 min, 9.7 h or 3.2 days."""
    for unit, size, least in (("days", 86_400, 2), ("h", 3600, 2), ("min", 60, 2)):
        if seconds >= least * size:
            return f"{seconds / size:,.{0 if unit == 'min' else 1}f} {unit}"
    return f"{seconds:,.0f} s"


def escape_controls(text: str) -> str:
    """Escape control characters except line ends and tabs: file names and servers must not command the terminal."""
    return "".join(char if char.isprintable() or char in "\n\t" else ascii(char)[1:-1] for char in text)
