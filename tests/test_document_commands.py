"""All commands in the documents are known, with their options, settings and configuration files."""

import importlib.util
import re
import shlex

import pytest
import typer

from model.cli.app import app
from model.config import Config, load_config
from pipeline.cli.command_types import OVERRIDE, Invocation
from tests.conftest import ROOT
from tests.documents import read_blocks
from tests.test_documents import DOCUMENTS

PROGRAMS = "promoter-bert ", "python ", "deepspeed ", "torchrun "


def commands(path):
    """List the words of each command line in the code blocks of a document, without what follows a backslash."""
    lines = [line for block in read_blocks(path) for line in block.splitlines()]
    known = [line.rstrip("\\") for line in lines if line.startswith(PROGRAMS)]
    return [shlex.split(line) for line in known if not re.search(r"(?<!')\$", line)]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_are_known(document, monkeypatch):
    monkeypatch.chdir(ROOT)
    known = typer.main.get_command(app).commands
    for program, *words in commands(document):
        if program == "promoter-bert" and words[0] != "--version":
            known[words[0]].make_context(words[0], words[1:], obj=Invocation(Config))
        elif "train.py" in words:
            own = words[words.index("train.py") + 1 :]
            file = own[own.index("--config") + 1] if "--config" in own else "config.yaml"
            overrides = [word for word in own if OVERRIDE.match(word)]
            load_config(file if "/" in file else "config.yaml", overrides)  # readers write those without a folder
        elif words[:1] == ["-m"]:
            assert importlib.util.find_spec(words[1]), words


def test_many_commands_are_found():
    found = [words for document in DOCUMENTS for words in commands(document)]
    assert len(found) > 120
    assert {"build", "shards", "predict", "explain", "variants", "evaluate", "serve", "baseline", "compare"} <= {
        words[1] for words in found if words[0] == "promoter-bert"
    }
