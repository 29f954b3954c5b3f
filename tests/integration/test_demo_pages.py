"""Every command and snippet of the pages that continue the demo, run as they stand with a small model."""

import shlex
import shutil
import socket
import subprocess
import time

import pytest

from tests.conftest import ROOT
from tests.documents import read_blocks
from tests.integration.conftest import Workspace

pytestmark = [pytest.mark.processes, pytest.mark.long]

PAGES = "explain", "variants-and-evaluation", "baselines", "serve"
DEMO = "--config", "configs/demo.yaml"


def blocks(page, language):
    return read_blocks(ROOT / "docs" / f"{page}.md", language)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """A folder with a short demo, and the files that the pages name."""
    folder = tmp_path_factory.mktemp("pages") / "work"
    made = Workspace(folder)
    shutil.copytree(ROOT / "configs", folder / "configs")
    (folder / "bench" / "quality").mkdir(parents=True)
    for name in ("config.yaml", "ds_config.json", "train.py", "bench/quality/quality.yaml"):
        shutil.copy(ROOT / name, folder / name)
    for rows, file in ((1200, "demo/demo.tsv"), (10_000, "yeast.tsv"), (200, "made.tsv")):
        made.run("promoter-bert", "generate", file, "--rows", str(rows), "--kind", "native")
    made.run("promoter-bert", "build", "demo/demo.tsv", *DEMO)
    made.run("promoter-bert", "shards", *DEMO)
    made.run("python", "train.py", *DEMO, "pretrain.max_epochs=1", "finetune.max_epochs=1")
    lines = [f"{line}\tchr{row % 3}" for row, line in enumerate((folder / "made.tsv").read_text().splitlines())]
    (folder / "labelled.tsv").write_text("\n".join(["sequence\texpression\tchrom", *lines]) + "\n")
    (variants,) = [block for block in blocks("explain", "") if block.startswith("id\t")]
    (folder / "variants.tsv").write_text(variants)
    for block in blocks("baselines", "yaml"):
        (folder / block.split()[1]).write_text(block)
    return made


@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", [page for page in PAGES if page != "serve"])
def test_commands_and_snippets(workspace, page):
    for line in "".join(blocks(page, "sh")).splitlines():
        workspace.run(*shlex.split(line))
    for snippet in blocks(page, "python"):
        assert "nan" not in workspace.run("python", "-c", snippet).stdout


def test_the_server_answers_the_request_of_its_page(workspace):
    start, request = (shlex.split(block) for block in blocks("serve", "sh"))
    with socket.socket() as port:
        if shutil.which("curl") is None or port.connect_ex(("127.0.0.1", 8000)) == 0:
            pytest.skip("needs curl and the free port 8000")
    server = workspace.start(*start)
    try:
        answer = ""
        for _ in range(60):
            done = subprocess.run(request, capture_output=True, text=True, timeout=60, check=False)
            answer = done.stdout
            if answer:
                break
            time.sleep(0.5)
    finally:
        server.terminate()
        server.wait(timeout=30)
    assert '"prediction"' in answer
    assert '"problem": null' in answer or '"problem":null' in answer
