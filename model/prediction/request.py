"""The options of `predict`, and their checks that need no torch (its import takes seconds)."""

from dataclasses import dataclass
from pathlib import Path

from model.artifacts.model_directory import labels_of, read_model_facts
from model.prediction.inputs import STANDARD_INPUT, find_prediction_input
from model.prediction.writers import (
    WRITERS,
    Writer,
    is_stream,
    leaderboard_writer,
    problems_file,
    write_lines,
    write_table,
)
from pipeline.dataset.input.columns import Columns
from pipeline.dataset.input.files import Input
from pipeline.dataset.input.repairs import with_repairs
from pipeline.errors import UserError
from pipeline.io.atomic import expect_folder


@dataclass(frozen=True)
class PredictionRequest:
    """One call of `predict`.

    model: folder of a model or of its run. inputs: files, glob patterns, or - for standard input. output: a .tsv, .txt,
    .csv or .parquet file, - for standard output, or a device or pipe. workers: processes, see predict_here.
    leaderboard: a sample submission; the output is the leaderboard's JSON. overrides: repairs of sequences, see
    with_repairs. header_names: read the names in FASTA headers. keep_columns: write all columns of the input.
    """

    model: Path
    inputs: list[str]
    output: str
    columns: Columns | None = None
    both_strands: bool = False
    workers: int | None = None
    leaderboard: Path | None = None
    overrides: tuple[str, ...] = ()
    header_names: bool = False
    keep_columns: bool = False

    def find_input(self) -> Input:
        """Resolve the input files and infer their layout; for standard input, from its head."""
        return find_prediction_input(self.inputs, self.columns, self.header_names, self.keep_columns)

    def find_writer(self) -> Writer:
        """Choose the writer by the suffix of the output; lines for a stream.

        Raises UserError for an output that no writer supports.
        """
        path, suffixes = Path(self.output), WRITERS if self.leaderboard is None else [".json"]
        if not is_stream(self.output):
            expect_folder(path)
            if path.is_dir():
                raise UserError(f"{path}: is a folder; expected the name of a file")
            if path.suffix not in suffixes:
                raise UserError(f"{path}: expected a name ending in {', '.join(suffixes)}, or - for standard output")
        if self.leaderboard is None:
            writer = write_lines if is_stream(self.output) else WRITERS[path.suffix]
            return write_table if self.keep_columns and writer is write_lines else writer
        if self.keep_columns:
            raise UserError("--leaderboard: its rows have numbers only; fix: omit --keep-columns")
        if self.header_names or (self.columns is not None and self.columns.name is not None):
            raise UserError("--leaderboard: its rows have numbers, not names; fix: omit --names and --name-column")
        if labels := labels_of(read_model_facts(self.model)):
            raise UserError(f"--leaderboard: one label, but this model has {len(labels)}: {', '.join(labels)}")
        return leaderboard_writer(self.leaderboard)


def check_request(request: PredictionRequest) -> None:
    """Check the model, the output and the input's layout. Raises UserError; reads no rows."""
    with_repairs(read_model_facts(request.model)["assay"], request.overrides)
    request.find_writer()
    if STANDARD_INPUT not in request.inputs:  # its head can be read only once
        check_output_is_no_input(request.output, request.find_input())


def check_output_is_no_input(output: str, source: Input) -> None:
    """Raise UserError if the output, or its problems file, is one of the input files."""
    if is_stream(output):
        return
    for path in (Path(output), problems_file(output)):
        if path.exists() and any(path.samefile(file) for file in source.files):
            raise UserError(f"{path}: is an input file, too; fix: another output, -o NAME")
