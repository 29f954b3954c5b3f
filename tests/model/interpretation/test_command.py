"""The command on a page: its words choose the same model, columns and options as the request of the page."""

import shlex
from pathlib import Path

import typer

from model.cli.app import app
from model.interpretation.command import table_command
from model.prediction.variants.columns import VariantColumns
from pipeline.dataset.input.columns import Columns

EXPLAIN = typer.main.get_command(app).commands["explain"]  # type: ignore[attr-defined]


def parse(command):
    program, name, *words = shlex.split(command)
    assert (program, name) == ("promoter-bert", "explain")
    overrides = [word for word in words if word.startswith("assay.")]
    context = EXPLAIN.make_context("explain", words)
    return {key: value for key, value in context.params.items() if value is not None and value is not False}, overrides


def test_the_command_has_all_options_of_the_request():
    columns, repairs = Columns(name="gene id"), ("assay.lower_case=upper",)
    chosen = VariantColumns("ref", "alt", "sequence", "pos", 0)
    command = table_command(Path("runs/a b"), ["x.tsv"], columns, chosen, "leaf", Path("m.meme"), repairs)
    found, overrides = parse(command)
    del found["config"]
    assert found == {
        "sequences": ["x.tsv"], "output": [Path("effects.tsv")], "model": Path("runs/a b"), "label": "leaf",
        "motifs": Path("m.meme"), "variants": True, "sequence_column": "sequence", "name_column": "gene id",
        "ref_column": "ref", "alt_column": "alt", "position_column": "pos", "first_position": 0,
    }  # fmt: skip
    assert overrides == list(repairs)


def test_the_command_of_one_sequence_names_the_model():
    found, _ = parse(table_command(Path("runs/demo")))
    assert (found["sequences"], found["model"]) == (["SEQUENCE"], Path("runs/demo"))
