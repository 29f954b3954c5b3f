"""The program `promoter-bert`: the data commands of pipeline/cli.py, and those that need a model."""

import os
import re
import sys
from contextlib import nullcontext, redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from pipeline.cli import Json, SequenceColumn, app, say
from pipeline.describe import FILES, counted
from pipeline.errors import UserError
from pipeline.progress import counting, progress

OVERRIDE = re.compile(r"[a-z_]+(\.[a-z_]+)+=")
TAKE_NO_SETTINGS = ("generate", "download", "verify", "peek", "predict")
"""Commands for which a setting would have no effect."""
BARE_KEY = re.compile(r"([a-z_]+)=")


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="Folder of a trained model: runs/NAME/model.")],
    files: Annotated[list[str], typer.Argument(help=f"Promoters: {FILES}; labels are ignored.")],
    output: Annotated[
        str, typer.Option("-o", "--output", help="File of sequence<TAB>prediction lines, or - for standard output.")
    ],
    sequence_column: SequenceColumn = None,
    as_json: Json = False,
) -> None:
    """Predict the expression of promoters, in the order they come."""
    from model.predict import is_stream, predict_file
    from pipeline.inputs import Columns

    with progress("predict", "promoters", quiet=as_json) as show:
        result = predict_file(model, files, output, counting(show, 0), Columns(sequence_column))
    place = "standard output" if output == "-" else output
    # Where the predictions go to standard output, the summary must not.
    with redirect_stdout(sys.stderr) if is_stream(output) else nullcontext():
        say(
            asdict(result),
            as_json,
            [
                f"{place}: {counted(result.rows, 'promoter')} in {result.seconds:,.1f} s",
                *(f"nan for {count:,}: {problem}" for problem, count in result.problems.items()),
            ],
        )


def main(arguments: list[str] | None = None) -> None:
    """Run a command. Exit code 0, 1 (the data or the run failed) or 2 (wrong usage)."""
    given = sys.argv[1:] if arguments is None else arguments
    overrides = [text for text in given if OVERRIDE.match(text)]
    try:
        for text in given:
            _check_override(text)
        if overrides and given[0] in TAKE_NO_SETTINGS:
            raise UserError(f"{overrides[0]}: {given[0]} goes by no configuration")
        app([text for text in given if text not in overrides], prog_name="promoter-bert", obj=overrides)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        _interrupted()
    except RuntimeError as error:
        if "Query interrupted" not in str(error):  # how DuckDB passes Ctrl-C on
            raise
        _interrupted()
    except BrokenPipeError:
        # Who reads our output has had enough; what is left of it goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        print(f"error: {error.strerror or error}{f': {error.filename}' if error.filename else ''}", file=sys.stderr)
        sys.exit(1)


def _interrupted() -> NoReturn:
    print("interrupted; the same command starts anew or goes on", file=sys.stderr)
    sys.exit(130)


def _check_override(text: str) -> None:
    """Raise UserError for a setting without its section, which would be taken for a file."""
    found = BARE_KEY.match(text)
    if found and not Path(text).exists():
        from pipeline.config import sections_with

        names = sections_with(found[1])
        if names:
            raise UserError(f"{text}: the setting's full name is {' or '.join(names)}")


if __name__ == "__main__":
    main()
