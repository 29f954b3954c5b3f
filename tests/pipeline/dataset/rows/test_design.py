"""Sequences from files of their own, joined to rows by their names."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from model.cli.app import app
from pipeline.dataset.build import build_dataset
from pipeline.dataset.input.columns import Columns
from pipeline.errors import UserError
from tests.pipeline.dataset.rows.small_tables import bare_config, select, sequences, write_table

ROWS = [(f"e{n}", bases, n % 9) for n, bases in enumerate(sequences(60))]
NAME = Columns("name")


def write_design(path, rows):
    if path.suffix == ".fa":
        path.write_text("".join(f">{name} chr1:1-30\n{bases[:10]}\n{bases[10:]}\n" for name, bases, _ in rows))
    else:
        write_table(path, ("name", "gc", "bases"), [(name, 0.5, bases) for name, bases, _ in rows])
    return [str(path)]


def write_activities(path, rows=ROWS):
    return [
        write_table(
            path, ("name", "activity", "barcodes"), [(name, label, n) for n, (name, _, label) in enumerate(rows)]
        )
    ]


@pytest.mark.parametrize("kind", ["fa", "tsv"])
def test_rows_get_the_sequence_of_their_name(tmp_path, kind):
    config = bare_config(tmp_path)
    design = write_design(tmp_path / f"d.{kind}", [*ROWS[2:], ("unused", "ACGT" * 8, 0)])
    rows = write_activities(tmp_path / "a.tsv")
    built = build_dataset(rows, config, columns=NAME, sequences=design)
    assert built.rejects == {"no sequence has the name of the row": 2}
    assert (built.designs.sequences, built.designs.without_row) == (59, 1)
    found = select(config, "select name, sequence, expression, barcodes from promoters order by barcodes")
    assert found == [(*row, n) for n, row in enumerate(ROWS)][2:]
    assert build_dataset(rows, config, columns=NAME, sequences=design).reused
    (tmp_path / f"d.{kind}").write_text((tmp_path / f"d.{kind}").read_text().replace("ACG", "TTT"))
    assert not build_dataset(rows, config, columns=NAME, sequences=design, replace=True).reused


def test_a_name_of_two_sequences_is_an_error(tmp_path):
    design = write_design(tmp_path / "d.fa", [*ROWS, ("e7", "ACGT" * 8, 0)])
    with pytest.raises(UserError, match="2 sequences have the name 'e7'"):
        build_dataset(write_activities(tmp_path / "a.tsv"), bare_config(tmp_path), columns=NAME, sequences=design)


def test_the_first_row_of_a_name_is_kept(tmp_path):
    design = write_design(tmp_path / "d.fa", [*reversed(ROWS), ("unused", "ACGT" * 8, 0)])
    names = [None, *(name for name, *_ in ROWS)] * 5
    rows = pa.table({"name": names, "activity": [n / 100 for n in range(len(names))]})
    pq.write_table(rows, tmp_path / "a.parquet")
    config = bare_config(tmp_path, "dataset.duplicates=first")
    built = build_dataset([str(tmp_path / "a.parquet")], config, columns=NAME, sequences=design)
    found = select(config, "select expression from promoters order by all")
    assert found == [(n / 100,) for n in range(1, len(ROWS) + 1)]
    assert (built.designs.sequences, built.designs.without_row) == (61, 1)


def test_the_command_joins_given_splits(tmp_path):
    design = write_design(tmp_path / "d.fa", ROWS)
    train = write_activities(tmp_path / "train.tsv", ROWS[:40])
    valid = write_activities(tmp_path / "valid.tsv", ROWS[40:])
    options = ["assay.left_adapter=", "assay.right_adapter=", "assay.flank=0", "--dataset", str(tmp_path / "x.duckdb")]
    named = ["--sequences", *design, "--sequence-name", "name", "--expression-column", "activity", *options]
    result = CliRunner().invoke(app, ["build", "--train", *train, "--valid", *valid, *named])
    assert result.exit_code == 0, result.output
    assert "train 40, valid 20, test 0" in result.output
    for arguments in ([*train, "--valid", *valid], [], [*train, "--sequences", *design]):
        assert CliRunner().invoke(app, ["build", *arguments, *options]).exit_code == 2


def test_missing_names_are_not_joined(tmp_path):
    rows = [("NA" if n == 3 else name, bases, label) for n, (name, bases, label) in enumerate(ROWS)]
    built = build_dataset(
        write_activities(tmp_path / "a.tsv", rows),
        bare_config(tmp_path),
        columns=NAME,
        sequences=write_design(tmp_path / "d.tsv", rows),
    )
    assert built.rejects == {"no sequence has the name of the row": 1}
    assert built.designs.sequences == len(ROWS) - 1
