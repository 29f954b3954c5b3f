import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import duckdb
import pytest

from pipeline.dataset.build import build_dataset
from pipeline.dataset.database import dataset_info, open_dataset
from pipeline.errors import UserError
from pipeline.reporting import dataset_page as stats
from tests.conftest import ROOT
from tests.pipeline.dataset.toy_dataset import TOY, L, R, line, toy_config, write

VOID = {"meta", "link", "img", "br", "hr", "input"}


class Reader(HTMLParser):
    """Collect text, tags, ids and references; fail on elements that are not closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.seen, self.ids, self.references, self.text = [], [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.seen.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        self.note(attributes)

    def handle_startendtag(self, tag, attributes):
        self.seen.append(tag)
        self.note(attributes)

    def note(self, attributes):
        for name, value in attributes:
            if name == "id":
                self.ids.append(value)
            elif name in ("href", "src", "xlink:href"):
                self.references.append(value)
            else:
                self.references += re.findall(r"url\(([^)]*)\)", value or "")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.text.append(" ".join(data.split()))


def build_toy(folder, rows=TOY, bad="bad\n", *overrides):
    config = toy_config(folder, *overrides)
    build_dataset([write(folder / "toy.tsv", "".join(line(*row) for row in rows) + bad)], config)
    return config.dataset.path


@pytest.fixture(scope="module")
def toy_page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stats")
    stats.write_stats(build_toy(folder, TOY, f"bad\n{L}<b>{R}\t5\n"), folder / "toy.html")
    return (folder / "toy.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def made_page(made, tmp_path_factory):
    out = tmp_path_factory.mktemp("stats") / "stats.html"
    steps = []
    result = stats.write_stats(made.config.dataset.path, out, steps.append)
    assert steps == [*stats.QUERIES, "drawing", ""]
    assert (result.page, result.promoters, result.bytes) == (str(out), 1500, out.stat().st_size)
    assert [path.name for path in out.parent.iterdir()] == ["stats.html"]
    return out.read_text(encoding="utf-8")


def test_numbers_of_a_small_dataset(toy_page):
    text = " ".join(filter(None, Reader(toy_page).text))
    for cells in (
        "input rows 14 promoters 12 rejected rows 2 pretraining threshold (expression) 7",
        "promoters at or above the threshold 6 (50 %)",
        *("finetune test 2", "finetune valid 3", "finetune train 7", "pretrain valid 3", "pretrain train 3"),
        "letters other than ACGTN 1",
        "1 column, expected 2 1",
        "The 6 promoters at or above the threshold of 7 (50 %) are used for pretraining.",
        "threshold 7",  # in the figure
        "8.3 % of the inserts are 3 bases long",  # every length once: the shortest is named
        "1 insert of the most common length (3 bases)",
    ):
        assert cells in text


def test_page_names_its_dataset_and_queries(made, made_page):
    with open_dataset(made.config.dataset.path) as connection:
        info = dataset_info(connection)
        (common,) = connection.execute("select avg((length(insert_of(sequence)) = 80)::int) from promoters").fetchone()
    assert info.key in made_page
    assert f"{info.pretrain_rows:,} (" in made_page
    for query in stats.QUERIES:
        assert f"sql/queries/{query}.sql" in made_page
    assert f"{round(100 * common, 1):g} % of the inserts are 80 bases long" in " ".join(
        filter(None, Reader(made_page).text)
    )


def test_page_is_valid_html_without_external_references(made_page, toy_page):
    for text in (made_page, toy_page):
        page = Reader(text)
        assert "http" not in text
        assert not {"script", "img", "link", "iframe"} & set(page.seen)
        assert len(page.ids) == len(set(page.ids))
        assert all(reference[0] == "#" and reference[1:] in page.ids for reference in page.references)
        figures = re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL)
        assert len(figures) == 6
        for figure in figures:
            root = ET.fromstring(figure)
            assert (root[0].tag, root.get("role")) == ("title", "img")
            assert root[0].text == root.get("aria-label")
    assert "<b>" not in toy_page


def test_same_dataset_gives_same_bytes_in_another_process(made, made_page, tmp_path):
    """Also with a matplotlibrc of the user."""
    (tmp_path / "matplotlibrc").write_text("lines.linewidth: 7\nsvg.fonttype: path\n")
    out = tmp_path / "again.html"
    code = "import sys; from pipeline.reporting.dataset_page import write_stats; write_stats(*sys.argv[1:])"
    subprocess.run(
        [sys.executable, "-c", code, made.config.dataset.path, str(out)],
        env={"MPLCONFIGDIR": str(tmp_path), "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "7"},
        cwd=tmp_path,
        check=True,
    )
    assert out.read_text(encoding="utf-8") == made_page


@pytest.mark.parametrize(
    ("rows", "overrides"),
    [
        ([("A", 5), ("C", 5), *(("", 5) for _ in range(10))], ["assay.min_insert=0"]),
        ([("", 5) for _ in range(12)], ["assay.min_insert=0", "dataset.finetune_valid=0", "dataset.finetune_test=0"]),
        ([("ACGTACGTACGT", n / 10 - 3) for n in range(12)], ["dataset.top_fraction=1", "assay.min_expression=-5"]),
    ],
)
def test_unusual_datasets_have_a_page(tmp_path, rows, overrides):
    dataset = build_toy(tmp_path, rows, "", *overrides)
    stats.write_stats(dataset, tmp_path / "odd.html")
    text = (tmp_path / "odd.html").read_text()
    Reader(text)
    assert "No row was rejected." in text
    assert "nan" not in text.lower()


def test_invalid_dataset_raises_and_keeps_the_old_page(tmp_path):
    page = tmp_path / "stats.html"
    page.write_text("old")
    write(tmp_path / "text.duckdb", "no database")
    duckdb.connect(str(tmp_path / "other.duckdb")).close()
    broken = duckdb.connect(build_toy(tmp_path))
    broken.execute("drop macro insert_of")
    broken.close()
    for name, message in (
        ("none.duckdb", "no such dataset"),
        ("text.duckdb", "not a DuckDB file"),
        ("other.duckdb", "holds no dataset"),
        ("dataset.duckdb", "insert_of"),
    ):
        with pytest.raises(UserError, match=message):
            stats.write_stats(tmp_path / name, page)
    assert page.read_text() == "old"
    assert not list(tmp_path.glob(".*"))


def test_output_that_cannot_be_written_raises(made, tmp_path):
    write(tmp_path / "file", "")
    (tmp_path / "folder.html").mkdir()
    for out, message in (
        ("stats.duckdb", "ending in .html"),
        ("file/stats.html", "file is not a folder"),
        ("typo/stats.html", r"no folder .*/typo; fix: mkdir -p .*/typo, "),
        ("folder.html", "cannot write"),
    ):
        with pytest.raises(UserError, match=message):
            stats.write_stats(made.config.dataset.path, tmp_path / out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.html"]
