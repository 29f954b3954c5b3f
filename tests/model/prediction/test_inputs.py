"""Standard input and files are read alike."""

import io
from types import SimpleNamespace

import pytest

from model.prediction import inputs
from model.prediction.inputs import find_prediction_input, read_parts
from tests.pipeline.dataset.input.reading import ASSAY, valid_rows

DNA = ["ACGTACGTACGTACGTACGT", "CCGTACGTACGTACGTACGT", "GCGTACGTACGTACGTACGT"]
FASTA = "".join(f">p{i} expression={i}\n{s[:9]}\n{s[9:]}\n" for i, s in enumerate(DNA))
TEXTS = {
    "a.fa": FASTA,
    "crlf.fa": FASTA.replace("\n", "\r\n"),
    "cr.fa": FASTA.replace("\n", "\r"),
    "mark.fa": f"\ufeff{FASTA}",
    "mark_cr.fa": f"\ufeff{FASTA}".replace("\n", "\r"),
    "blank.fa": f"\n\n{FASTA}",
    "not_ended.fa": FASTA.rstrip("\n"),
    "a.tsv": "".join(f"{s}\t{i}\n" for i, s in enumerate(DNA)),
    "cr.tsv": "".join(f"{s}\t{i}\r" for i, s in enumerate(DNA)),
    "preamble.tsv": "# x\n# y\nsequence\texpression\n" + "".join(f"{s}\t{i}\n" for i, s in enumerate(DNA)),
    "spaces.txt": "".join(f"{s} {i}\n" for i, s in enumerate(DNA)),
    "rows_of_r.txt": "sequence expression\n" + "".join(f"r{i} {s} {i}\n" for i, s in enumerate(DNA)),
}


def predicted(source):
    return [row for part in read_parts(source, ASSAY, 2) for row in part.table.to_pylist()]


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("head_bytes", [1 << 16, 130])
def test_standard_input_and_files_give_the_same_rows_as_a_build(tmp_path, monkeypatch, name, head_bytes):
    monkeypatch.setattr(inputs, "HEAD_BYTES", head_bytes)
    (tmp_path / name).write_bytes(TEXTS[name].encode())
    monkeypatch.setattr(inputs.sys, "stdin", SimpleNamespace(buffer=io.BytesIO(TEXTS[name].encode())))
    expected = [{"sequence": s, "repaired": s, "problem": None} for s in DNA]
    assert predicted(find_prediction_input([str(tmp_path / name)], None)) == expected
    assert predicted(find_prediction_input(["-"], None)) == expected
    assert [sequence for sequence, _ in valid_rows([tmp_path / name])] == DNA


@pytest.mark.parametrize("name", [name for name in TEXTS if name.endswith(".fa")])
def test_names_of_entries(tmp_path, name):
    (tmp_path / name).write_bytes(TEXTS[name].encode())
    source = find_prediction_input([str(tmp_path / name)], None, header_names=True)
    assert [row["name"] for row in predicted(source)] == ["p0", "p1", "p2"]
