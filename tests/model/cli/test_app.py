"""Composition of the program: classes of commands, overrides, launcher options, help and version."""

import json
import re
import sys
from importlib.metadata import version

import pytest
import typer

from model.cli.app import PANELS, app, main
from model.cli.exit_codes import exit_codes
from pipeline.cli.command_types import DistributedCommand
from tests.conftest import ROOT

COMMANDS = typer.main.get_command(app).commands


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main(list(arguments))
    return end.value.code, *capsys.readouterr()


@pytest.mark.parametrize("name", COMMANDS)
def test_usage_names_arguments_in_capitals_and_the_default_configuration_on_one_line(name, capsys):
    _, out, _ = run(capsys, name, "--help")
    usage = " ".join(out.partition("\n\n")[0].split()[3:])
    assert re.fullmatch(r"\[OPTIONS\]( \[?[A-Z]+(\.\.\.)?\]?)*( \[section\.key=value\]\.\.\.)?", usage), usage
    if "--config" in out:
        assert "the project's config.yaml" in " ".join(out.split())


def test_keys_without_their_section_are_named_from_all_sections(capsys):
    code, _, error = run(capsys, "build", "seed=1")
    assert code == 1
    assert "dataset.seed or run.seed" in error


def test_a_command_without_a_configuration_refuses_overrides_only(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, error = run(capsys, "generate", "rows.tsv", "shards.k=4")
    assert code == 1
    assert error.startswith("error: shards.k=4: promoter-bert generate ")
    assert run(capsys, "generate", "my.rows=2.tsv", "--rows", "10", "--json")[0] == 0
    assert (tmp_path / "my.rows=2.tsv").exists()


def test_an_override_reaches_the_configuration(capsys, tmp_path):
    query = ["query", "select 1", "--config", str(ROOT / "config.yaml"), f"dataset.path={tmp_path}/none.duckdb"]
    code, _, error = run(capsys, *query)
    assert (code, f"{tmp_path}/none.duckdb" in error) == (1, True)
    for wrong in ("shards.kk=4", "pretrain.lr=1", "shrds.k=4"):
        code, _, error = run(capsys, *query, wrong)
        assert (code, wrong.partition("=")[0].partition(".")[0] in error) == (1, True)


def test_relaunch_passes_on_all_arguments_after_its_options(tmp_path, capsys):
    script = f"import json, sys; json.dump(sys.argv[1:], open({str(tmp_path / 'words')!r}, 'w')); sys.exit(1)"
    arguments = ["shards.k=4", "seed=1", "--max-restarts", "9", "--help", "--local_rank=1"]
    code, *_ = run(capsys, "relaunch", "--max-restarts", "0", sys.executable, "-c", script, *arguments)
    assert code == 1
    assert json.loads((tmp_path / "words").read_text()) == arguments


def test_only_commands_that_run_as_ranks_take_the_launchers_option(capsys):
    ranked = {name for name, command in COMMANDS.items() if isinstance(command, DistributedCommand)}
    assert ranked == {"predict", "variants", "evaluate"}
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


def test_version_option_prints_the_installed_version(capsys):
    assert run(capsys, "--version") == (0, f"promoter-bert {version('promoter-bert')}\n", "")


@pytest.mark.parametrize("name", COMMANDS)
def test_version_and_output_have_one_name_in_all_commands(name, capsys):
    assert run(capsys, name, "--version") == (0, f"promoter-bert {version('promoter-bert')}\n", "")
    names = [param.opts for param in COMMANDS[name].params if "out" in param.opts[-1]]
    assert names in ([], [["-o", "--output"]], [["out"]])
    assert "--out " not in run(capsys, name, "--help")[1].replace("--output ", "")


@pytest.mark.parametrize(
    ("command", "resumes"),
    [
        ("shards", True), ("build", False), ("evaluate -o e.html", True), ("evaluate --output=e.html", True),
        ("evaluate --by chrom", False),
    ],
)  # fmt: skip
def test_an_interrupted_command_says_whether_it_resumes(command, resumes, capsys):
    with pytest.raises(SystemExit) as end, exit_codes(["--local_rank=0", *command.split()]):
        raise KeyboardInterrupt
    assert end.value.code == 130
    assert ("to resume" in capsys.readouterr().err) == resumes
