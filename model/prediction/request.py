"""What `predict` is asked for, and what can be said against it before torch is loaded."""

from dataclasses import dataclass
from pathlib import Path

from model.artifacts.model_directory import facts_of_model
from model.prediction.inputs import STANDARD_INPUT, find_rows
from model.prediction.leaderboard import leaderboard
from model.prediction.writers import Format, format_of, is_stream, problems_beside
from pipeline.dataset.input_files import Input
from pipeline.dataset.input_format import Columns
from pipeline.dataset.repairs import with_repairs
from pipeline.errors import UserError
from pipeline.io.atomic import expect_folder


@dataclass(frozen=True)
class Asked:
    """What to predict. model: a model's folder, or its run's; names: input files, patterns, or - for standard input;
    output: a .tsv, .txt, .csv or .parquet file, - for standard output, or a device or pipe; workers: see predict_parts;
    leaderboard: a sample submission, by which a .json file is written; overrides: repairs, see with_repairs;
    header_names: see find_rows."""

    model: Path
    names: list[str]
    output: str
    columns: Columns | None = None
    both_strands: bool = False
    workers: int | None = None
    leaderboard: Path | None = None
    overrides: tuple[str, ...] = ()
    header_names: bool = False

    def find_rows(self) -> Input:
        """See find_rows."""
        return find_rows(self.names, self.columns, self.header_names)


def check_asked(asked: Asked) -> None:
    """Raise UserError for a model, input or output that cannot be used, as far as can be told without reading rows."""
    with_repairs(facts_of_model(asked.model)["assay"], asked.overrides)
    format_asked(asked)
    if STANDARD_INPUT not in asked.names:  # its first bytes can be looked at once only
        check_is_no_input(asked.output, asked.find_rows())


def format_asked(asked: Asked) -> Format:
    """How the output is written. Raises UserError for a place or an ending that it cannot have."""
    if not is_stream(asked.output):
        expect_folder(Path(asked.output))
    if asked.leaderboard is None:
        return format_of(asked.output)
    if not is_stream(asked.output) and Path(asked.output).suffix != ".json":
        raise UserError(f"{asked.output}: the leaderboard takes JSON; expected a name ending in .json (-o NAME.json)")
    if asked.header_names or (asked.columns is not None and asked.columns.name is not None):
        raise UserError("the leaderboard goes by row numbers; leave out --names and --name-column")
    return leaderboard(asked.leaderboard)


def check_is_no_input(output: str, given: Input) -> None:
    """Raise UserError where the output, or what is written beside it, is one of the inputs."""
    if is_stream(output):
        return
    for path in (Path(output), problems_beside(output)):
        if path.exists() and any(path.samefile(file) for file in given.files):
            raise UserError(f"{path}: this is an input file, too; write the predictions to another one")
