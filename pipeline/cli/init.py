"""The command init: a configuration file to start from."""

import shlex
import shutil
from pathlib import Path
from typing import Annotated

import typer
import yaml

from pipeline.cli.options import Json, print_result
from pipeline.errors import UserError
from pipeline.paths import ASSAYS, TRAIN, suggest

TWO_CORES = "configs/two-cores.yaml"
"""The base of presets for two CPU cores."""


def init(
    assay: Annotated[str | None, typer.Option(help="Name of the assay. [default: list the assays]")] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="File to write. [default: ASSAY.yaml in this folder]")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a commented configuration file of an assay, to start from.

    Without --assay, the assays are listed. An existing file is not overwritten.

    Example: promoter-bert init --assay human-lentimpra -o my.yaml
    """
    if assay is None:
        if output is not None:
            raise typer.BadParameter("needs --assay NAME", param_hint="--output")
        assays = describe_assays()
        width = max(map(len, assays))
        print_result({"assays": assays}, as_json, [f"{name:{width}}  {about}" for name, about in assays.items()])
        return
    written = write_config(assay, output or Path(f"{assay}.yaml"))
    lines = [
        f"{written}: edit it, then",
        f"  promoter-bert build FILES --config {written}",
        f"  promoter-bert shards --config {written}",
        f"  {choose_launcher(written)} {shlex.quote(find_train_script())} --config {written}",
    ]
    print_result({"config": str(written), "assay": assay}, as_json, lines)


def choose_launcher(preset: Path) -> str:
    """Choose what starts train.py: python for a model of two CPU cores, deepspeed for the paper's model on GPUs."""
    base = yaml.safe_load(preset.read_text(encoding="utf-8"))["base"]
    return "python" if base == TWO_CORES else "deepspeed"


def find_train_script() -> str:
    """Return the path of train.py that works in the current folder: relative below it, else absolute."""
    here = Path.cwd()
    return str(TRAIN.relative_to(here) if TRAIN.is_relative_to(here) else TRAIN)


def describe_assays() -> dict[str, str]:
    """Return the first comment of each preset, by the name of its assay."""
    files = sorted(ASSAYS.glob("*.yaml"))
    return {file.stem: file.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ") for file in files}


def write_config(assay: str, output: Path) -> Path:
    """Copy the preset of an assay. Raises UserError for an unknown assay, and for a file that exists or is no .yaml."""
    if assay not in describe_assays():
        question = suggest(assay, describe_assays())
        raise UserError(f"--assay {assay}: no such assay{question}; expected {', '.join(describe_assays())}")
    if output.suffix not in (".yaml", ".yml"):
        raise UserError(f"{output}: expected a name ending in .yaml")
    try:
        with output.open("xb") as file, (ASSAYS / f"{assay}.yaml").open("rb") as preset:
            shutil.copyfileobj(preset, file)
    except FileExistsError:
        raise UserError(f"{output}: exists already and is not overwritten; fix: another name, -o OTHER.yaml") from None
    except OSError as error:
        raise UserError(f"{output}: cannot be written: {error.strerror}") from None
    return output
