"""Command classes. The class of a command decides whether it takes `section.key=value` overrides."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import typer
from typer.core import TyperCommand

from pipeline.config.loader import find_keys
from pipeline.config.schema import DataConfig
from pipeline.errors import UserError

OVERRIDE = re.compile(r"([a-z_]+)(\.[a-z_]+)+=")
BARE_KEY = re.compile(r"([a-z_]+)=")


@dataclass(frozen=True)
class Invocation:
    """Overrides and schema of one invocation, in the context's `obj`.

    schema: of the program's configuration files; overrides: `section.key=value` arguments of the command line.
    """

    schema: type[DataConfig] = DataConfig
    overrides: tuple[str, ...] = ()


def print_version() -> NoReturn:
    """Print the installed version and exit."""
    from importlib.metadata import version

    print(f"promoter-bert {version('promoter-bert')}")
    raise typer.Exit


def refuse_repeated(command: TyperCommand, ctx: Any, arguments: list[str]) -> None:
    """Raise a usage error for a repeated option that takes one value: only the last value would count."""
    _, _, params = command.make_parser(ctx).parse_args(args=list(arguments))
    for param in params:
        takes_one = param.param_type_name == "option" and not (getattr(param, "is_flag", False) or param.multiple)
        if takes_one and params.count(param) > 1:
            raise typer.BadParameter("appears more than once; expected one value", param_hint=param.opts[-1])


def usage_pieces(command: TyperCommand, takes_overrides: bool) -> list[str]:
    """List the pieces of the usage line: [OPTIONS], names of arguments in capitals, and overrides."""
    pieces = ["[OPTIONS]"]
    for param in command.params:
        if param.param_type_name == "argument":
            name = f"{(param.name or '').upper()}{'...' if param.nargs != 1 else ''}"
            pieces.append(name if param.required else f"[{name}]")
    return [*pieces, *["[section.key=value]..."] * takes_overrides]


class Command(TyperCommand):
    """A command without a configuration: an override would have no effect and is refused."""

    takes_overrides: ClassVar[bool] = False

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Move the overrides among the arguments into the context; the parser of options gets the others.

        Raises UserError for an override of a command that takes none, and for a key without its section.
        """
        if "--version" in (args[: args.index("--")] if "--" in args else args):
            print_version()
        invocation = ctx.obj or Invocation()
        arguments, overrides = self._partition(args, invocation.schema)
        if overrides and not self.takes_overrides:
            raise UserError(f"{overrides[0]}: promoter-bert {self.name} reads no configuration; fix: omit the override")
        ctx.obj = replace(invocation, overrides=tuple(overrides))
        refuse_repeated(self, ctx, arguments)
        return super().parse_args(ctx, arguments)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:  # noqa: ARG002
        """Return the pieces of the usage line."""
        return usage_pieces(self, self.takes_overrides)

    def make_parser(self, ctx: Any) -> Any:
        """Make the parser of options, which also knows their hidden names."""
        parser = super().make_parser(ctx)
        option: Any
        for option in self.params:
            if names := _hidden_names(option):
                action = "append" if option.multiple else "store"
                parser.add_option(option, names, option.name, action, nargs=option.nargs)
        return parser

    def _partition(self, args: list[str], schema: type[DataConfig]) -> tuple[list[str], list[str]]:
        """Split arguments into those for the parser and overrides.

        Values of options, and arguments after --, are no overrides.
        """
        with_value = {
            name
            for param in self.params
            if param.param_type_name == "option" and not getattr(param, "is_flag", False)
            for name in (*param.opts, *_hidden_names(param))
        }
        end = args.index("--") if "--" in args else len(args)
        arguments: list[str] = []
        overrides: list[str] = []
        option = ""
        for argument in args[:end]:
            is_value = option in with_value
            (overrides if not is_value and self._is_override(argument, schema) else arguments).append(argument)
            option = "" if is_value else argument
        return arguments + args[end:], overrides

    def _is_override(self, argument: str, schema: type[DataConfig]) -> bool:
        """Return whether an argument is an override. With an unknown section, it may name an existing file."""
        if match := OVERRIDE.match(argument):
            return match[1] in schema.model_fields or (self.takes_overrides and not Path(argument).exists())
        if (match := BARE_KEY.match(argument)) and not Path(argument).exists():
            names = find_keys(match[1], schema)
            if names:
                raise UserError(f"{argument}: the section is missing; expected {' or '.join(names)} as the key")
        return False


def _hidden_names(param: Any) -> list[str]:
    """List the former names of an option: --output was --out in some commands."""
    return ["--out"] if "--output" in param.opts else []


class ConfiguredCommand(Command):
    """A command that reads the configuration, and takes overrides of it."""

    takes_overrides: ClassVar[bool] = True


class DistributedCommand(ConfiguredCommand):
    """A command that DeepSpeed's launcher can run as several ranks."""
