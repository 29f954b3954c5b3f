"""Documents name files that exist, and their links are valid."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "shards" / "README.md"]
DEVELOPERS = [path for path in ROOT.glob("*.md") if path.name != "README.md"]
"""Not in the site."""


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


def test_all_links_of_the_site_lead_to_files_and_headings(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "-q", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    pages = {page: page.read_text(encoding="utf-8") for page in tmp_path.glob("*.html") if page.name != "404.html"}
    assert len(pages) == len(DOCUMENTS) - len(DEVELOPERS)
    for page, text in pages.items():
        for link in re.findall(r'(?:href|src)="([^":]+)"', text):
            path, _, heading = link.partition("#")
            target = page.parent / path if path else page
            assert target.is_file(), (page.name, link)
            if heading and target.suffix == ".html":
                assert f'id="{heading}"' in pages[target.resolve()], (page.name, link)


def test_the_figures_are_those_of_their_script(tmp_path):
    script = tmp_path / "figures.py"
    script.write_bytes((ROOT / "docs" / "figures.py").read_bytes())
    subprocess.run([sys.executable, script], timeout=60, check=True)
    for name in ("flow.svg", "kmers.svg"):
        assert (tmp_path / name).read_bytes() == (ROOT / "docs" / name).read_bytes()


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 180
