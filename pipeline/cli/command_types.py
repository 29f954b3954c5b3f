"""Command classes. The class of a command decides whether it takes `section.key=value` overrides."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

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

    schema: of the program's configuration files; overrides: `section.key=value` words of the command line.
    """

    schema: type[DataConfig] = DataConfig
    overrides: tuple[str, ...] = ()


def refuse_repeated(command: TyperCommand, ctx: Any, words: list[str]) -> None:
    """Raise a usage error for an option with one value that is given more than once: only the last would count."""
    _, _, params = command.make_parser(ctx).parse_args(args=list(words))
    for param in params:
        takes_one = param.param_type_name == "option" and not (getattr(param, "is_flag", False) or param.multiple)
        if takes_one and params.count(param) > 1:
            raise typer.BadParameter("given more than once; expected one value", param_hint=param.opts[-1])


class Command(TyperCommand):
    """A command without a configuration: an override would have no effect and is refused."""

    takes_overrides: ClassVar[bool] = False

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Move the overrides among the words into the context; the parser of options gets the others.

        Raises UserError for an override of a command that takes none, and for a key without its section.
        """
        invocation = ctx.obj or Invocation()
        words, overrides = self._partition(args, invocation.schema)
        if overrides and not self.takes_overrides:
            raise UserError(f"{overrides[0]}: promoter-bert {self.name} reads no configuration; fix: leave it out")
        ctx.obj = replace(invocation, overrides=tuple(overrides))
        refuse_repeated(self, ctx, words)
        return super().parse_args(ctx, words)

    def _partition(self, args: list[str], schema: type[DataConfig]) -> tuple[list[str], list[str]]:
        """Split words into those for the parser and overrides. Values of options, and words after --, are no
        overrides."""
        with_value = {
            name
            for param in self.params
            if param.param_type_name == "option" and not getattr(param, "is_flag", False)
            for name in param.opts
        }
        end = args.index("--") if "--" in args else len(args)
        words: list[str] = []
        overrides: list[str] = []
        option = ""
        for word in args[:end]:
            is_value = option in with_value
            (overrides if not is_value and self._is_override(word, schema) else words).append(word)
            option = "" if is_value else word
        return words + args[end:], overrides

    def _is_override(self, word: str, schema: type[DataConfig]) -> bool:
        """Whether a word sets a value. A word with an unknown section is a file name if such a file exists."""
        if match := OVERRIDE.match(word):
            return match[1] in schema.model_fields or (self.takes_overrides and not Path(word).exists())
        if (match := BARE_KEY.match(word)) and not Path(word).exists():
            names = find_keys(match[1], schema)
            if names:
                raise UserError(f"{word}: the setting's full name is {' or '.join(names)}")
        return False


class ConfiguredCommand(Command):
    """A command that reads the configuration, and takes overrides of it."""

    takes_overrides: ClassVar[bool] = True


class DistributedCommand(ConfiguredCommand):
    """A command that DeepSpeed's launcher can run as several ranks."""
