"""`explain` for files: sequences and variants in, tables and pages out."""

import json
import re

import numpy as np
import pyarrow.parquet as pq
import pytest
import typer
from typer.testing import CliRunner

from model.cli.app import app
from model.interpretation import outputs
from model.interpretation.files import explain_files
from model.interpretation.request import ExplainRequest
from model.interpretation.saturation_mutagenesis import saturation_mutagenesis
from model.prediction.predictor import Predictor
from model.prediction.variants.columns import VariantColumns
from model.prediction.variants.effects import variant_effects
from pipeline.dataset.input.columns import Columns
from pipeline.errors import UserError
from tests.model.saved_model import save_model

L, R = "TGCATTTTTTTCACATC", "GGTTACGGCTGTT"
INSERTS = {"one": "ACGTTGAC", "two": "TTNACGGA", "three": "GATTACAG", "long": "ACGTACGTACGT"}
MOTIF = "MEME version 4\nMOTIF MA1 GATA\nletter-probability matrix: alength= 4 w= 7\n" + "".join(
    " ".join("1" if base == letter else "0" for base in "ACGT") + "\n" for letter in "GATTACA"
)


@pytest.fixture(scope="module")
def model(tmp_path_factory, made):
    folder = save_model(tmp_path_factory.mktemp("model"), made.config.assay)
    settings = json.loads((folder / "config.json").read_text())
    settings["promoter_bert"]["insert_lengths"] = [6, 10]
    (folder / "config.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture(scope="module")
def predictor(model):
    return Predictor(model)


@pytest.fixture
def fasta(tmp_path):
    path = tmp_path / "rows.fa"
    entries = {name: f"{L}{insert}{R}" for name, insert in INSERTS.items()} | {"bad": "ACGTX"}
    path.write_text("".join(f">{name} and more\n{bases}\n" for name, bases in entries.items()))
    (tmp_path / "motifs.meme").write_text(MOTIF)
    return path


def read_tsv(path):
    head, *lines = (line.split("\t") for line in path.read_text().splitlines())
    return [dict(zip(head, line, strict=True)) for line in lines]


def check_rows(rows, predictor, promoter):
    expected = saturation_mutagenesis(predictor, promoter).table().to_pylist()
    assert [(int(row["position"]), row["reference"], row["base"]) for row in rows] == [
        (row["position"], row["reference"], row["base"]) for row in expected
    ]
    for column in ("prediction", "effect"):
        assert [float(row[column]) for row in rows] == pytest.approx([row[column] for row in expected], abs=1e-5)


def test_tables_have_the_effects_of_all_sequences_by_name(model, predictor, fasta, tmp_path):
    out, warnings = [tmp_path / "out.tsv", tmp_path / "out.parquet"], []
    request = ExplainRequest(model, [str(fasta)], out, Columns(), motifs=tmp_path / "motifs.meme")
    result = explain_files(request, warn=warnings.append)
    rows = read_tsv(out[0])
    assert list(rows[0]) == ["row", "name", "position", "reference", "base", "prediction", "effect", "motifs"]
    assert len(rows) == result.substitutions == 3 * 8 + 3 * 8 + 1 + 3 * 8 + 3 * 12  # an N has four
    for number, (name, insert) in enumerate(INSERTS.items(), 1):
        own = [row for row in rows if row["name"] == name]
        assert {row["row"] for row in own} == {str(number)}
        check_rows(own, predictor, f"{L}{insert}{R}")
    hits = {row["position"]: row["motifs"] for row in rows if row["name"] == "three"}
    assert hits["7"].startswith("MA1 GATA:1..7:+:6.1e-05")  # 4 ** -7
    assert hits["8"] == ""
    assert [[str(row["row"]), row["name"], row["motifs"]] for row in pq.read_table(out[1]).to_pylist()] == [
        [row["row"], row["name"], row["motifs"]] for row in rows
    ]
    assert (result.rows, result.problems) == (5, {"letters other than ACGTN": 1})
    assert "ACGTX" in (tmp_path / "out.problems.tsv").read_text()
    (warning,) = warnings
    assert "1 of 4 have inserts of 12 bases, and the model was trained on 6 to 10 bases" in warning
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


def test_pages_say_how_many_of_the_rows_they_show(model, fasta, tmp_path, monkeypatch):
    monkeypatch.setattr(outputs, "MAX_FIGURES", 2)
    page, table = tmp_path / "out.html", tmp_path / "out.tsv"
    result = explain_files(ExplainRequest(model, [str(fasta)], [page, table], Columns()))
    text = page.read_text()
    assert (result.rows_drawn, result.rows) == (2, 5)
    assert "The page shows the first 2 of 4 promoters. out.tsv: the substitutions of all of them." in text
    assert re.findall(r"<h2>(.*)</h2>", text) == ["Overview", "How to read the figures", "one", "two"]
    assert len({row["name"] for row in read_tsv(table)}) == 4
    assert not re.search(r"(src|href)=\"(?!#|data:)", text)
    ids = re.findall(r' id="([^"]+)"', text)
    assert len(set(ids)) == len(ids)
    alone = explain_files(ExplainRequest(model, [str(fasta)], [page], Columns()))  # no table needs the other rows
    assert (alone.rows, alone.rows_drawn, alone.problems) == (2, 2, {})
    assert "The page shows the first 2 promoters of 5 rows. Add -o effects.tsv to explain all" in page.read_text()
    text = "# a comment\n" + "".join(f"{L}{insert}{R}\n" for insert in INSERTS.values())
    piped = json.loads(run("-", "--model", model, "-o", page, "--json", input=text).stdout)
    assert (piped["rows"], piped["rows_total"], piped["is_complete"]) == (2, 0, False)  # the total is unknown
    assert "The page shows the first 2 promoters. Add -o effects.tsv to explain all" in page.read_text()


def test_rejected_rows_are_listed_with_name_and_reason(model, tmp_path):
    """At most ten; and one explained row is not `all 1`."""
    rows, page = tmp_path / "rows.fa", tmp_path / "out.html"
    bad = "".join(f">bad{number}\nACGTX\n" for number in range(12))
    rows.write_text(f">good\n{L}ACGT{R}\n{bad}")
    explain_files(ExplainRequest(model, [str(rows)], [page], Columns()))
    text = " ".join(re.sub("<[^>]*>", " ", page.read_text()).split())
    assert "The page shows the only promoter. 12 rows had no prediction." in text
    assert "2 bad0 letters other than ACGTN 3 bad1" in text
    assert ("bad9" in text, "bad10" in text, "and 2 more rows" in text) == (True, False, True)


def test_variants_have_both_sides(model, predictor, tmp_path):
    promoter, alternative = f"{L}{INSERTS['one']}{R}", f"{L}{INSERTS['one'].replace('TTG', 'TG')}{R}"
    lines = [
        ["id", "sequence", "pos", "ref", "alt"],
        ["change", promoter, "20", "G", "T"],
        ["deletion", promoter, "21", "T", "-"],
        ["wrong", promoter, "21", "C", "T"],
    ]
    (tmp_path / "variants.tsv").write_text("".join("\t".join(line) + "\n" for line in lines))
    out = [tmp_path / "out.html", tmp_path / "out.tsv"]
    request = ExplainRequest(
        model, [str(tmp_path / "variants.tsv")], out, Columns(name="id"), variants=VariantColumns()
    )
    result = explain_files(request)
    assert result.problems == {"reference allele is not in the sequence at this position": 1}
    assert result.columns == {"reference": "ref", "alternative": "alt", "sequence": "sequence", "position": "pos"}
    rows = read_tsv(out[1])
    for side, bases in (("reference", promoter), ("alternative", alternative)):
        own = [row for row in rows if row["name"] == "deletion" and row["side"] == side]
        check_rows(own, predictor, bases)
    assert {row["row"] for row in rows} == {"1", "2"}
    effects = variant_effects(predictor, [promoter] * 2, [(20, "G", "T"), (21, "T", "")]).effect
    page = out[0].read_text()
    for text in ("G3T", "5delT", *(f"{effect:+.3f}" for effect in effects), "The page shows all 2 variants."):
        assert text in page


def test_an_interrupted_call_is_resumed_and_writes_the_same(model, fasta, tmp_path):
    whole, parted = tmp_path / "whole.tsv", tmp_path / "parted.tsv"
    explain_files(ExplainRequest(model, [str(fasta)], [whole], Columns()))

    def interrupt(done, total, resumed):
        if done == 2:
            raise KeyboardInterrupt

    request = ExplainRequest(model, [str(fasta)], [parted], Columns())
    with pytest.raises(KeyboardInterrupt):
        explain_files(request, interrupt)
    assert not parted.exists()
    result = explain_files(request)
    assert result.rows_resumed >= 2
    assert parted.read_bytes() == whole.read_bytes()
    assert not list(tmp_path.glob(".*parted*"))


def test_requests_that_cannot_work_are_refused(model, fasta, tmp_path):
    bad = tmp_path / "bad.txt"
    bad.write_text("ACGTX\nACGTXX\n")
    copy = tmp_path / "rows.tsv"
    copy.write_text(f"sequence\n{L}ACGT{R}\n")
    for inputs, output, message in (
        ([str(bad)], "out.tsv", "nothing to predict"),
        ([str(copy)], "rows.tsv", "is an input file, too"),
        ([str(fasta)], "out.pdf", "expected a name ending in"),
        (["missing.fa"], "out.tsv", "no such file"),
    ):
        with pytest.raises(UserError, match=message):
            explain_files(ExplainRequest(model, inputs, [tmp_path / output], Columns()))
    with pytest.raises(UserError, match="appears twice"):
        explain_files(ExplainRequest(model, [str(fasta)], [tmp_path / "a.tsv"] * 2, Columns()))
    shifted = tmp_path / "shifted.tsv"
    shifted.write_text(f"sequence\tpos\tref\talt\n{L}ACGT{R}\t17\tA\tT\n")
    with pytest.raises(UserError, match=r"nothing to predict .* fix: --first-position 0"):
        explain_files(ExplainRequest(model, [str(shifted)], [tmp_path / "out.tsv"], Columns(), VariantColumns()))
    with pytest.raises(UserError, match="is the list of invalid rows, too"):
        explain_files(
            ExplainRequest(model, [str(fasta)], [tmp_path / "out.html", tmp_path / "out.problems.tsv"], Columns())
        )
    assert not list(tmp_path.glob("out*"))


def run(*arguments, **options):
    return CliRunner().invoke(app, ["explain", *map(str, arguments)], standalone_mode=False, **options)


def test_the_command_tells_sequences_from_files(model, predictor, fasta, tmp_path):
    out = tmp_path / "out.tsv"
    listed = json.loads(run(fasta, "--model", model, "-o", out, "--json").stdout)
    assert (listed["rows"], listed["rows_drawn"], listed["outputs"]) == (5, 0, [str(out)])
    promoter = f"{L}{INSERTS['long']}{R}"
    single = run(promoter, "--model", model, "-o", out, "--json")
    assert json.loads(single.stdout)["prediction"] == pytest.approx(float(predictor.predict([promoter])[0]), abs=1e-5)
    assert "1 of 1 have inserts of 12 bases" in single.stderr
    assert list(read_tsv(out)[0]) == ["position", "reference", "base", "prediction", "effect"]
    assert np.isfinite([float(row["effect"]) for row in read_tsv(out)]).all()
    page, figure = tmp_path / "page.html", tmp_path / "figure.png"
    with_motif = f"{L}{INSERTS['three']}{R}"
    run(with_motif, "--model", model, "-o", page, "-o", figure, "--motifs", tmp_path / "motifs.meme")
    assert "<td>MA1 GATA</td><td>1\u00a0to\u00a07</td><td>+</td>" in page.read_text()
    assert figure.read_bytes().startswith(b"\x89PNG")
    for arguments, message in (
        ((promoter, "--name-column", "id"), "has no meaning with a sequence"),
        ((fasta, "--ref-column", "ref"), "has no meaning without --variants"),
    ):
        error = run(*arguments, "--model", model, "-o", out).exception
        assert isinstance(error, typer.BadParameter)
        assert message in str(error)
