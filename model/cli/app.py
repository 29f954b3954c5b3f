"""Composition of the program promoter-bert: every command with its class and its help panel."""

import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from model.cli import analysis, cluster
from model.cli.baseline import baseline
from model.cli.evaluate import evaluate
from model.cli.exit_codes import exit_codes
from model.cli.explain import explain
from model.cli.predict import predict
from model.cli.serve import serve
from model.cli.variants import variants
from model.config import Config
from pipeline.cli import dataset, shards
from pipeline.cli.command_types import (
    Command,
    ConfiguredCommand,
    DistributedCommand,
    Invocation,
    print_version,
    refuse_repeated,
    usage_pieces,
)
from pipeline.cli.init import init


class PanelGroup(TyperGroup):
    """Command group that lists its commands by panel in plain text; typer's own panels load rich, which is slow."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002
        """Write one section per panel, in the order of the commands."""
        limit = formatter.width - 6 - max(map(len, self.commands))
        panels: dict[str, list[tuple[str, str]]] = {}
        for name, command in self.commands.items():
            panel = getattr(command, "rich_help_panel", None) or "Commands"
            panels.setdefault(panel, []).append((name, command.get_short_help_str(limit)))
        for panel, rows in panels.items():
            with formatter.section(panel):
                formatter.write_dl(rows)


class WrapperCommand(TyperCommand):
    """Command that runs another program: all arguments after its own options belong to that program."""

    allow_interspersed_args = False
    ignore_unknown_options = True

    def collect_usage_pieces(self, ctx: Any) -> list[str]:  # noqa: ARG002
        """Return the pieces of the usage line."""
        return usage_pieces(self, takes_overrides=False)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the command's own options; raises a usage error for a repeated one."""
        if args[:1] == ["--version"]:
            print_version()
        refuse_repeated(self, ctx, args)
        return super().parse_args(ctx, args)


PANELS: dict[str, tuple[tuple[type[TyperCommand], Callable[..., None]], ...]] = {
    "Data": (
        (Command, init),
        (Command, dataset.generate),
        (Command, dataset.download),
        (ConfiguredCommand, dataset.build),
        (ConfiguredCommand, dataset.query),
        (ConfiguredCommand, dataset.stats),
        (ConfiguredCommand, dataset.leaks),
        (ConfiguredCommand, shards.shards),
        (Command, shards.verify),
        (Command, shards.peek),
    ),
    "Training and prediction": (
        (ConfiguredCommand, baseline),
        (DistributedCommand, predict),
        (DistributedCommand, variants),
        (ConfiguredCommand, serve),
        (Command, analysis.onnx),
    ),
    "Analysis": (
        (DistributedCommand, evaluate),
        (Command, analysis.score),
        (ConfiguredCommand, explain),
        (Command, analysis.report),
        (Command, analysis.compare),
        (ConfiguredCommand, analysis.ceiling),
    ),
    "Cluster": (
        (ConfiguredCommand, cluster.doctor),
        (WrapperCommand, cluster.relaunch),
    ),
}

app = typer.Typer(
    cls=PanelGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for panel, commands in PANELS.items():
    for kind, function in commands:
        app.command(cls=kind, rich_help_panel=panel)(function)


@app.callback()
def program(
    context: typer.Context,
    _version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=lambda requested: requested and print_version(),
            is_eager=True,
            help="Show the version and exit.",
        ),
    ] = False,
    local_rank: Annotated[int | None, typer.Option("--local_rank", hidden=True)] = None,
) -> None:
    """Build datasets of measured promoters, train BERT models on them, and predict expression.

    Commands with the option --config accept overrides of the configuration: shards.k=4 dataset.seed=1.
    Training has its own program: deepspeed train.py.

    Example: promoter-bert build rows.tsv --dataset my.duckdb
    """
    assert isinstance(context.command, PanelGroup)
    command = context.command.commands[context.invoked_subcommand or ""]
    if local_rank is not None and not isinstance(command, DistributedCommand):
        raise typer.BadParameter(
            f"{command.name} runs in one process; fix: promoter-bert {command.name} without deepspeed"
        )


def main(arguments: list[str] | None = None) -> None:
    """Run a command and exit; the exit codes are listed in exit_codes.py. arguments: default sys.argv[1:]."""
    command_line = sys.argv[1:] if arguments is None else arguments
    with exit_codes(command_line):
        app(command_line, prog_name="promoter-bert", obj=Invocation(Config))
