"""Documents name files that exist, and their links are valid."""

import re
from pathlib import Path

import pytest

from tests.conftest import ROOT

DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "shards" / "README.md"]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files(document):
    for link in re.findall(r"\]\(([^)#:]+)\)", document.read_text(encoding="utf-8")):
        assert (document.parent / link).exists(), link


def test_files_in_the_tables_of_the_architecture_exist():
    rows = [row for row in (ROOT / "docs/architecture.md").read_text(encoding="utf-8").splitlines() if row[:1] == "|"]
    for row in rows:
        names = [name for name in re.findall(r"`([^`]+)`", row) if "/" in name or name.endswith(".py")]
        for name in names:
            path = name.rstrip("/")
            assert list(ROOT.glob(path if "/" in path else f"{Path(names[0]).parent}/{path}")), name
