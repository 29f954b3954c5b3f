"""The program `promoter-bert`: the data commands of pipeline/cli.py, and those that need a model."""

import re
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli import Json, app, say
from pipeline.errors import UserError
from pipeline.progress import progress

OVERRIDE = re.compile(r"[a-z_]+(\.[a-z_]+)+=")


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="Folder of a trained model: runs/NAME/model.")],
    files: Annotated[
        list[str], typer.Argument(help="Promoters: .tsv, .txt (also .gz) or .parquet; labels are ignored.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="File of sequence<TAB>prediction lines.")],
    as_json: Json = False,
) -> None:
    """Predict the expression of promoters, in the order they come."""
    from model.predict import predict_file

    with progress("predict", "promoters", quiet=as_json) as show:
        done = 0

        def count(more: int) -> None:
            nonlocal done
            done += more
            show(done, 0, "")

        result = predict_file(model, files, output, count)
    rate = result.rows / max(result.seconds, 1e-9)
    say(
        asdict(result),
        as_json,
        [
            f"{result.output}: {result.rows:,} promoters in {result.seconds:,.1f} s ({rate:,.0f} a second)",
            *(f"nan for {count:,}: {problem}" for problem, count in result.problems.items()),
        ],
    )


def main(arguments: list[str] | None = None) -> None:
    """Run a command. Exit code 0, 1 (the data or the run failed) or 2 (wrong usage)."""
    given = sys.argv[1:] if arguments is None else arguments
    overrides = [text for text in given if OVERRIDE.match(text)]
    try:
        app([text for text in given if text not in overrides], prog_name="promoter-bert", obj=overrides)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted; nothing half-written is left", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
