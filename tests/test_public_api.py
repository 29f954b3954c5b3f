"""The public API: every name resolves, importing is quick, and a module that hides a package is named."""

import importlib
import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.processes

HEAVY = {"torch", "transformers", "deepspeed", "duckdb", "pyarrow", "scipy", "numpy", "pydantic", "yaml", "typer"}
NAMES = [
    (module, name)
    for module in ("pipeline", "model", "promoter_bert")
    for name in importlib.import_module(module).__all__
]


def python(code: str, folder) -> subprocess.CompletedProcess[str]:
    """Run code in a folder, which comes first on sys.path as for a user."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("module", "name"), NAMES)
def test_every_public_name_resolves(module, name):
    attribute = getattr(importlib.import_module(module), name)
    assert callable(attribute)
    assert attribute.__module__.partition(".")[0] in ("pipeline", "model")
    assert name in dir(importlib.import_module(module))


def test_promoter_bert_has_the_names_of_both_packages():
    import model
    import pipeline
    import promoter_bert

    assert sorted([*pipeline.__all__, *model.__all__]) == promoter_bert.__all__
    for package in (pipeline, model, promoter_bert):
        with pytest.raises(AttributeError, match="no attribute 'nothing'"):
            package.nothing  # noqa: B018


def test_importing_it_imports_nothing_heavy(tmp_path):
    code = f"import promoter_bert, model, pipeline, sys; sys.exit(', '.join({HEAVY} & set(sys.modules)) or 0)"
    done = python(code, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", ["model.py", "pipeline.py", "model/__init__.py", "model/other.txt"])
def test_module_that_shadows_a_package_is_named(name, tmp_path):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("")
    done = python("from promoter_bert import Predictor", tmp_path)
    if name.endswith(".txt"):  # a folder that is no package hides nothing
        assert done.returncode == 0, done.stderr
        return
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"ImportError: {tmp_path / name}: ")
    assert "fix: " in last
