"""Composition of the program: classes of commands, overrides, launcher options, help and version."""

import json
from importlib.metadata import version
from typing import Any

import pytest
import typer

from model.cli.app import PANELS, app, main
from model.config import Config
from pipeline.cli.command_types import Command, ConfiguredCommand, DistributedCommand, Invocation
from tests.conftest import ROOT

COMMANDS = typer.main.get_command(app).commands


def run(capsys, *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main(list(words))
    return end.value.code, *capsys.readouterr()


def parsed(words: list[str], *, kind: type[Command] = ConfiguredCommand) -> tuple[list[str], tuple[str, ...]]:
    """The words that are left to the parser of `query`'s options, and the overrides."""
    from pipeline.cli.dataset import query

    program = typer.Typer()
    program.command(cls=kind)(query)
    command = typer.main.get_command(program)
    seen: list[list[str]] = []
    command.make_parser = lambda _ctx: Spy(seen)
    context: Any = typer.Context(command, obj=Invocation(Config))
    with pytest.raises(StopIteration):
        command.parse_args(context, words)
    return seen[0], context.obj.overrides


class Spy:
    def __init__(self, seen: list[list[str]]) -> None:
        self.seen = seen

    def parse_args(self, args: list[str]) -> None:
        self.seen.append(args)
        raise StopIteration


@pytest.mark.parametrize(
    ("words", "overrides"),
    [
        (["select 1"], ()),
        (["select 1", "shards.k=4", "--json", "run.name=x=y"], ("shards.k=4", "run.name=x=y")),
        (["--json", "pretrain.plateau.factor=0.1", "select 1"], ("pretrain.plateau.factor=0.1",)),
        (["unknown.key=1"], ("unknown.key=1",)),  # refused by name when the configuration is read
        (["from a join b on a.x=b.x"], ()),
        (["a.x=1.sql"], ()),  # a file
        (["select 1", "-o", "shards.k=4"], ()),  # an option's value
        (["select 1", "--output", "shards.k=4", "shards.k=5"], ("shards.k=5",)),
        (["select 1", "--output=shards.k=4"], ()),
        (["select 1", "--json", "shards.k=4"], ("shards.k=4",)),  # --json has no value
        (["--", "shards.k=4"], ()),
        (["shards.k=3", "--", "shards.k=4"], ("shards.k=3",)),
    ],
)
def test_overrides_are_taken_out_of_a_commands_own_words(words, overrides, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.x=1.sql").touch()
    left, found = parsed(words)
    assert found == overrides
    assert [word for word in words if word not in overrides] == left


def test_a_command_without_a_configuration_refuses_overrides_only(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, error = run(capsys, "generate", "rows.tsv", "shards.k=4")
    assert code == 1
    assert error.startswith("error: shards.k=4: promoter-bert generate ")
    assert run(capsys, "generate", "my.rows=2.tsv", "--rows", "10", "--json")[0] == 0
    assert (tmp_path / "my.rows=2.tsv").exists()


@pytest.mark.parametrize("command", ["build", "verify"])
def test_a_key_without_its_section_is_refused_unless_it_is_a_file(command, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, error = run(capsys, command, "seed=1")
    assert code == 1
    assert "dataset.seed or run.seed" in error
    (tmp_path / "seed=1").touch()
    assert "dataset.seed" not in run(capsys, command, "seed=1")[2]


def test_an_override_reaches_the_configuration(capsys, tmp_path):
    query = ["query", "select 1", "--config", str(ROOT / "config.yaml"), f"dataset.path={tmp_path}/none.duckdb"]
    code, _, error = run(capsys, *query)
    assert (code, f"{tmp_path}/none.duckdb" in error) == (1, True)
    for wrong in ("shards.kk=4", "pretrain.lr=1", "shrds.k=4"):
        code, _, error = run(capsys, *query, wrong)
        assert (code, wrong.partition("=")[0].partition(".")[0] in error) == (1, True)


def test_relaunch_passes_on_all_words_behind_its_own_options(tmp_path, capsys):
    import sys

    script = f"import json, sys; json.dump(sys.argv[1:], open({str(tmp_path / 'words')!r}, 'w')); sys.exit(1)"
    words = ["shards.k=4", "seed=1", "--max-restarts", "9", "--help", "--local_rank=1"]
    code, *_ = run(capsys, "relaunch", "--max-restarts", "0", sys.executable, "-c", script, *words)
    assert code == 1
    assert json.loads((tmp_path / "words").read_text()) == words


def test_only_commands_that_run_as_ranks_take_the_launchers_option(capsys):
    ranked = {name for name, command in COMMANDS.items() if isinstance(command, DistributedCommand)}
    assert ranked == {"predict"}
    for name in COMMANDS:
        code, *_ = run(capsys, "--local_rank=1", name, "--help")
        assert code == (0 if name in ranked else 2)


def test_the_help_lists_every_command_in_its_panel_in_one_line(capsys):
    code, out, _ = run(capsys, "--help")
    assert code == 0
    listed: dict[str, list[str]] = {}
    for line in out[out.index("Options:") :].splitlines():
        if line and not line.startswith(" "):
            names = listed.setdefault(line.rstrip(":"), [])
        elif line.strip() and names is not listed["Options"]:
            names.append(line.split()[0])
            assert line.endswith(".")
            assert not line.endswith("...")
    del listed["Options"]
    assert listed == {panel: [function.__name__ for _, function in commands] for panel, commands in PANELS.items()}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_of_a_command_is_described(name, capsys):
    code, out, _ = run(capsys, name, "--help")
    assert code == 0
    assert COMMANDS[name].help
    assert all(param.help for param in COMMANDS[name].params), out


def test_the_version(capsys):
    assert run(capsys, "--version") == (0, f"promoter-bert {version('promoter-bert')}\n", "")


@pytest.mark.parametrize(("command", "resumes"), [("shards", True), ("build", False)])
def test_an_interrupted_command_says_whether_it_resumes(command, resumes, capsys):
    from model.cli.exit_codes import exit_codes

    with pytest.raises(SystemExit) as end, exit_codes(["--local_rank=0", command]):
        raise KeyboardInterrupt
    assert end.value.code == 130
    assert ("to resume" in capsys.readouterr().err) == resumes
