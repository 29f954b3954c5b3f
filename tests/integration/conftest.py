"""Working directory like a user's: train.py, settings, a small config.yaml, data and shards."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT, SMALL

BIN = Path(sys.executable).parent
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")},
    "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
}


@dataclass(frozen=True)
class Workspace:
    """A folder to run commands in."""

    folder: Path

    def run(self, *command: str, check: bool = True, timeout: float = 240) -> subprocess.CompletedProcess[str]:
        """Run a command here to its end, and show its output if it fails."""
        done = subprocess.run(
            command, cwd=self.folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=timeout, check=False
        )
        if check and done.returncode:
            raise AssertionError(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        """Start a command in a process group of its own."""
        silent = subprocess.DEVNULL
        return subprocess.Popen(
            command, cwd=self.folder, env=ENVIRONMENT, stdout=silent, stderr=silent, start_new_session=True
        )


def by_the_model_card(workspace: Workspace, run: str) -> tuple[float, float]:
    """Return two predictions of one promoter: by the snippet of the run's model card, and by `predict`."""
    card = (workspace.folder / "runs" / run / "model" / "README.md").read_text()
    (snippet,) = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    (promoter,) = re.findall(r'^promoter = "(.*)"$', snippet, flags=re.MULTILINE)
    (workspace.folder / "one.tsv").write_text(f"{promoter}\n")
    output = workspace.run("promoter-bert", "predict", f"runs/{run}/model", "one.tsv", "-o", "-").stdout
    return float(workspace.run("python", "-c", snippet).stdout), float(output.split("\t")[1])


def make_workspace(folder: Path, **files: str) -> Workspace:
    folder.mkdir(exist_ok=True)
    for name in ("train.py", "ds_config.json", "hostfile"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "sql", folder / "sql")
    values: dict = {"base": str(ROOT / "config.yaml")}
    for override in SMALL:
        key, _, value = override.partition("=")
        section, name = key.split(".")
        values.setdefault(section, {})[name] = float(value) if "e-" in value else yaml.safe_load(value)
    (folder / "config.yaml").write_text(yaml.safe_dump(values))
    return Workspace(folder)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory) -> Workspace:
    """Data and shards made; nothing trained."""
    workspace = make_workspace(tmp_path_factory.mktemp("work") / "prepared")
    workspace.run("promoter-bert", "generate", "train_sequences.txt", "--rows", "1500", "--seed", "1")
    workspace.run("promoter-bert", "build", "train_sequences.txt")
    workspace.run("promoter-bert", "shards")
    return workspace


@pytest.fixture(scope="session")
def trained(prepared) -> Workspace:
    """The same with run `paper` trained by plain `python train.py`, without interruption."""
    prepared.run("python", "train.py")
    return prepared
