"""The layout of the code: imports run downwards through the layers, without cycles; folders and files stay small."""

import ast
from collections import Counter
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.conftest import ROOT

LAYERS = (
    "train",
    "promoter_bert",
    "model.cli",
    "model.cluster",
    "model.serving",
    "model.reporting",
    "model.export",
    "model.interpretation",
    "model.training",
    "model.baselines",
    "model.prediction",
    "model.distributed",
    "model.watchdog",
    "model.runs",
    "model.scoring",
    "model.muon",
    "model.bert",
    "model.artifacts",
    "model.config",
    "pipeline.cli",
    "pipeline.reporting",
    "pipeline.stream",
    "pipeline.shards",
    "pipeline.dataset",
    "pipeline.near_duplicates",
    "pipeline.tokens",
    "pipeline.io",
    "pipeline.runtime",
    "pipeline.config",
    "pipeline.errors",
    "pipeline.paths",
)
"""Each may import those behind it, but a cli package is imported by model.cli only."""
FACADES = ("pipeline", "model")
"""Their __init__ re-exports names of any layer; for users only."""
MOST_MODULES = 16
MOST_LINES = 350


def modules(root: Path) -> dict[str, Path]:
    """Return the project's modules by name."""
    files = [*root.glob("*.py"), *(file for name in FACADES for file in (root / name).rglob("*.py"))]
    return {".".join(file.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): file for file in files}


def imports(files: dict[str, Path]) -> dict[str, set[str]]:
    """Return the project's modules that each module imports, at any place in it."""
    return {name: {target for target in _imported(file, files) if target in files} for name, file in files.items()}


def _imported(file: Path, files: dict[str, Path]) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            yield from names & set(files) or {node.module}


def problems(root: Path) -> list[str]:
    """List the rules that a tree breaks."""
    files = modules(root)
    graph = {name: targets for name, targets in imports(files).items() if name not in FACADES}
    wrong = (problem for name, targets in graph.items() for other in targets if (problem := _problem(name, other)))
    return sorted([*wrong, *_circle(graph), *_large(files)])


def _problem(module: str, imported: str) -> str:
    """Describe why a module must not import another one; empty if it may."""
    above, below = _layer(module), _layer(imported)
    if above == below:
        return ""
    if imported in FACADES:
        return "" if module in ("promoter_bert", "train") else f"{module} imports the public API of {imported}"
    unknown = [name for name in (above, below) if name not in LAYERS]
    if unknown:
        return f"{unknown[0]} is in no layer"
    if LAYERS.index(below) < LAYERS.index(above):
        return f"{module} imports {imported}, a layer above it"
    is_command_line = below.endswith(".cli") and above != "model.cli"
    return f"{module} imports {imported}, of a command line" if is_command_line else ""


def _layer(module: str) -> str:
    return ".".join(module.split(".")[:2])


def _circle(graph: dict[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return [f"imports in a circle: {' <- '.join(error.args[1])}"]
    return []


def _large(files: dict[str, Path]) -> Iterator[str]:
    for folder, count in Counter(file.parent for file in files.values()).items():
        if count > MOST_MODULES:
            yield f"{folder.name}/: {count} modules; expected at most {MOST_MODULES}"
    for name, file in files.items():
        lines = len(file.read_text(encoding="utf-8").splitlines())
        if lines > MOST_LINES:
            yield f"{name}: {lines} lines; expected at most {MOST_LINES}"


def test_the_project_keeps_its_layout():
    assert problems(ROOT) == []


TREE = (
    "pipeline.__init__",
    "pipeline.errors",
    "pipeline.io.atomic",
    "pipeline.io.locks",
    "pipeline.dataset.build",
    "pipeline.shards.write",
    "pipeline.cli.options",
    "model.config",
    "model.training.loop",
    "model.prediction.files",
    "model.cluster.doctor",
)


@pytest.mark.parametrize(
    ("module", "text", "problem"),
    [
        ("pipeline.io.atomic", "from model.config import Config", "a layer above it"),
        ("pipeline.dataset.build", "def f():\n    import pipeline.shards.write", "a layer above it"),
        ("model.prediction.files", "from model.training import loop", "a layer above it"),
        ("model.cluster.doctor", "from pipeline.cli.options import Json", "of a command line"),
        ("pipeline.shards.write", "from pipeline import UserError", "the public API"),
        ("pipeline.io.locks", "import pipeline.io.atomic", "in a circle"),
        ("pipeline.helpers.text", "import pipeline.errors", "in no layer"),
        ("pipeline.io.long", "\n" * MOST_LINES, f"{MOST_LINES + 1} lines"),
    ],
)
def test_violations_of_the_layout_are_reported(module, text, problem, tmp_path):
    for name in TREE:
        write_module(tmp_path, name, "")
    write_module(tmp_path, "pipeline.io.atomic", "import pipeline.io.locks")
    assert problems(tmp_path) == []
    write_module(tmp_path, module, text)
    (reported,) = problems(tmp_path)
    assert problem in reported


def write_module(root: Path, name: str, text: str) -> None:
    """Add text to a module."""
    file = root / Path(*name.split(".")).with_suffix(".py")
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as out:
        out.write(f"{text}\n")


def test_a_folder_of_too_many_modules_is_reported(tmp_path):
    (tmp_path / "pipeline" / "io").mkdir(parents=True)
    for number in range(MOST_MODULES + 1):
        (tmp_path / "pipeline" / "io" / f"part{number}.py").touch()
    assert problems(tmp_path) == [f"io/: {MOST_MODULES + 1} modules; expected at most {MOST_MODULES}"]
