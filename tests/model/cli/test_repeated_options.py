"""Every command refuses a repeated option that takes one value."""

import pytest
import typer

from model.cli.app import app, main

COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
OPTIONS = [
    (name, option.opts[-1])
    for name, command in COMMANDS.items()
    for option in command.params
    if option.param_type_name == "option" and not (option.is_flag or option.multiple)
]


@pytest.mark.parametrize(("command", "option"), OPTIONS)
def test_repeated_option_is_wrong_usage(command, option, capsys):
    with pytest.raises(SystemExit) as end:
        main([command, option, "1", option, "2"])
    assert end.value.code == 2
    assert f"{option}: appears more than once" in capsys.readouterr().err


def test_no_labels_excludes_a_column_of_labels(tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        main(["build", "a.tsv", "--no-labels", "--expression-column", "y"])
    assert end.value.code == 2
    assert "--no-labels" in capsys.readouterr().err
