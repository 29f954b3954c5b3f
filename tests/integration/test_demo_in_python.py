"""The code of docs/demo-in-python.md, run as one script on fewer rows."""

import re
import shutil
import subprocess

import pytest

from tests.conftest import ROOT
from tests.documents import read_blocks
from tests.integration.conftest import ENVIRONMENT

pytestmark = pytest.mark.processes

PAGE = (ROOT / "docs" / "demo-in-python.md").read_text(encoding="utf-8")


def blocks(language):
    return read_blocks(ROOT / "docs" / "demo-in-python.md", language)


@pytest.mark.timeout(300)
def test_the_code_of_the_page(tmp_path):
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    for name in ("config.yaml", "ds_config.json"):
        shutil.copy(ROOT / name, tmp_path)
    (command,) = "".join(blocks("sh")).splitlines()
    program = tmp_path / "page.py"
    program.write_text("".join(blocks("python")))
    outputs = []
    for arguments in (command.replace("20000", "1000").split(), ["python", str(program)]):
        done = subprocess.run(
            arguments, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=250, check=False
        )
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout)
    assert float(re.search(r"test Pearson (\S+)", outputs[-1])[1]) > 0.1
    pictures = re.findall(r"!\[[^]]+\]\((\S+)\)", PAGE)
    assert len(pictures) == 3
    for name in pictures:
        assert "<svg" in (tmp_path / name).read_text()
        assert (ROOT / "docs" / name).exists()
