"""Overrides among the arguments of a command line."""

from typing import Annotated

import pytest
import typer

from pipeline.cli.command_types import Command, ConfiguredCommand, Invocation
from pipeline.errors import UserError


def parse(kind: type[Command], arguments: list[str]) -> tuple[list[str], str | None, tuple[str, ...]]:
    """Return the arguments, the value of -o and the overrides that a command's function gets."""
    app = typer.Typer(add_completion=False)
    seen = []

    @app.command(cls=kind)
    def show(
        context: typer.Context,
        names: list[str],
        output: Annotated[str | None, typer.Option("-o", "--output")] = None,
        as_json: Annotated[bool, typer.Option("--json")] = False,
    ) -> None:
        seen.append((names, output, context.obj.overrides))

    app(arguments, obj=Invocation(), standalone_mode=False)
    return seen[0]


@pytest.mark.parametrize(
    ("arguments", "names", "output", "overrides"),
    [
        (["select 1"], ["select 1"], None, ()),
        (["a", "shards.k=4", "--json", "shards.path=x=y"], ["a"], None, ("shards.k=4", "shards.path=x=y")),
        (["--json", "pretrain.plateau.factor=0.1", "a"], ["a"], None, ("pretrain.plateau.factor=0.1",)),
        (["a", "unknown.key=1"], ["a"], None, ("unknown.key=1",)),  # reported when the configuration is loaded
        (["from a join b on a.x=b.x"], ["from a join b on a.x=b.x"], None, ()),
        (["a.x=1.sql"], ["a.x=1.sql"], None, ()),  # an existing file
        (["a", "-o", "shards.k=4"], ["a"], "shards.k=4", ()),
        (["a", "--output", "shards.k=4", "shards.k=5"], ["a"], "shards.k=4", ("shards.k=5",)),
        (["a", "--output=shards.k=4"], ["a"], "shards.k=4", ()),
        (["a", "--out", "shards.k=4", "shards.k=5"], ["a"], "shards.k=4", ("shards.k=5",)),
        (["a", "--out=shards.k=4"], ["a"], "shards.k=4", ()),
        (["a", "-o", "-o", "shards.k=5"], ["a"], "-o", ("shards.k=5",)),
        (["--", "shards.k=4"], ["shards.k=4"], None, ()),
        (["shards.k=3", "--", "shards.k=4"], ["shards.k=4"], None, ("shards.k=3",)),
    ],
)
def test_configured_command_separates_overrides(arguments, names, output, overrides, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.x=1.sql").touch()
    assert parse(ConfiguredCommand, arguments) == (names, output, overrides)


@pytest.mark.parametrize("arguments", [["a", "shards.k=4"], ["dataset.seed=1"]])
def test_another_command_refuses_overrides(arguments):
    with pytest.raises(UserError, match=arguments[-1]):
        parse(Command, arguments)


@pytest.mark.parametrize("arguments", [["my.file=1.tsv"], ["title=1"], ["-o", "x", "--", "shards.k=4"]])
def test_command_without_configuration_gets_all_arguments(arguments):
    assert parse(Command, arguments)[0] == [arguments[-1]]


@pytest.mark.parametrize("kind", [Command, ConfiguredCommand])
def test_a_key_without_its_section_is_refused_unless_it_is_a_file(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"seed=1: .*dataset\.seed"):
        parse(kind, ["seed=1"])
    (tmp_path / "seed=1").touch()
    assert parse(kind, ["seed=1"])[0] == ["seed=1"]


@pytest.mark.parametrize("kind", [Command, ConfiguredCommand])
@pytest.mark.parametrize(
    "arguments",
    [["-o", "x", "-o", "y"], ["-o", "x", "a", "--output=x"], ["--output", "x", "-ox"], ["--out", "x", "-ox"]],
)
def test_repeated_option_is_refused(kind, arguments):
    with pytest.raises(typer.BadParameter, match="appears more than once"):
        parse(kind, ["a", *arguments])


def test_repeated_flag_is_accepted():
    assert parse(Command, ["a", "--json", "--json"])[0] == ["a"]
