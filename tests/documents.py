"""Code blocks of the documents."""

import re
from pathlib import Path

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def read_blocks(document: Path, language: str | None = None) -> list[str]:
    """Read the code blocks of a document. language: of the blocks, empty for those without one; None: all blocks."""
    blocks = BLOCK.findall(document.read_text(encoding="utf-8"))
    return [text for name, text in blocks if language is None or name == language]
