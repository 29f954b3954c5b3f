"""Documents name files that exist, and their links are valid."""

import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from pipeline.dataset.query import run_query
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


def test_the_query_of_metrics_shows_the_run_that_is_training(tmp_path, monkeypatch, capfd):
    """A pretraining without any evaluation so far, whose name comes first or last; the other run is finished."""
    page = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    (query,) = re.findall(r"^promoter-bert query (.*metrics\.jsonl.*)$", page, re.MULTILINE)
    lines = [f'{{"stage": "pretrain", "step": {step}, "epoch": 0.1, "loss": 4.0}}' for step in range(20, 200, 20)]
    finished = [*lines, '{"stage": "finetune", "step": 9, "epoch": 1, "valid_loss": 0.5, "valid_pearson": 0.6}']
    monkeypatch.chdir(tmp_path)
    for training, other in (("a", "b"), ("c", "b")):
        for run, content in ((other, finished), (training, lines)):
            folder = tmp_path / training / "runs" / run
            folder.mkdir(parents=True)
            (folder / "metrics.jsonl").write_text("\n".join(content) + "\n")
            age_s = 60 * (run == other)
            os.utime(folder / "metrics.jsonl", (time.time() - age_s,) * 2)
        monkeypatch.chdir(tmp_path / training)
        run_query("none.duckdb", shlex.split(query)[0], "csv")
        rows = [row.split(",") for row in capfd.readouterr().out.replace('"', "").splitlines()[1:]]
        assert [row[:3] for row in rows] == [
            [f"runs/{training}/metrics.jsonl", "pretrain", str(step)] for step in (180, 160, 140, 120, 100)
        ]


def test_outputs_of_the_examples_are_ignored_by_git():
    """Files named by -o in a document, default files, and the paths of the configurations."""
    texts = [path.read_text(encoding="utf-8") for path in DOCUMENTS]
    commands = [line for text in texts for line in text.splitlines() if line.startswith("promoter-bert ")]
    outputs = {
        name for command in commands for name in re.findall(r"(?:-o|--dataset|[a-z]+\.path=) ?([^ =]+)", command)
    }
    outputs |= {"explain.html", "compare.html", "stats.html", "model.onnx", "predictions.problems.tsv", "slurm-7.out"}
    for path in (ROOT / "config.yaml", *ROOT.glob("configs/**/*.yaml")):
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
        outputs |= {
            str(config[section]["path"])
            for section in ("dataset", "shards", "run")
            if "path" in config.get(section, {})
        }
    names = sorted(f"{name}/x" if "." not in name else name for name in outputs if "://" not in name)
    assert len(names) > 20
    if not (ROOT / ".git").exists():
        pytest.skip("no git checkout")
    done = subprocess.run(
        ["git", "check-ignore", "--no-index", *names], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert set(names) - set(done.stdout.splitlines()) == set()
