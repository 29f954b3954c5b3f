"""Hooks of mkdocs: pages and files outside docs/ become part of the site, and links to them are adapted."""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
PAGES = {"README.md": "index.md", "shards/README.md": "shards.md"}
"""Documents outside docs/, and their names in the site."""
LINK = re.compile(r"(?<=\]\()(?!https?:|#)([^)#]+)(#[^)]*)?(?=\))")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the documents of PAGES, and every file that a document links to."""
    for source, name in PAGES.items():
        files.append(File.generated(config, name, content=(ROOT / source).read_text(encoding="utf-8")))
    documents = [ROOT / source for source in PAGES] + sorted((ROOT / "docs").glob("*.md"))
    for document in documents:
        for target, _ in LINK.findall(document.read_text(encoding="utf-8")):
            path = (document.parent / target).resolve()
            name = _name_in_site(path.relative_to(ROOT).as_posix())
            if path.is_file() and files.get_file_from_path(name) is None:
                files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Let links lead to the files of the site. A link to a folder becomes its text."""
    name = page.file.src_uri
    source = next((source for source, site in PAGES.items() if site == name), f"docs/{name}")
    folder = posixpath.dirname(source)

    def adapt(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(folder, match[1]))
        return posixpath.relpath(_name_in_site(path), posixpath.dirname(name) or ".") + (match[2] or "")

    folders = re.compile(r"\[([^\]]+)\]\((?!https?:|#)([^)#]+)\)")
    markdown = folders.sub(lambda link: link[1] if (ROOT / folder / link[2]).is_dir() else link[0], markdown)
    return LINK.sub(adapt, markdown)


def on_page_content(html: str, **_: object) -> str:
    """Give tables the theme's style, in a box that scrolls. The theme's script does so only on sites with a search."""
    html = html.replace("<table>", '<div class="table-responsive" tabindex="0"><table class="table">')
    return html.replace("</table>", "</table></div>")


def _name_in_site(path: str) -> str:
    """Name a file of the repository in the site. Files outside docs/ lie in `files/`, as text."""
    if path in PAGES:
        return PAGES[path]
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return f"files/{path}.txt" if not path.endswith(".md") else f"files/{path.replace('/', '-')}"
