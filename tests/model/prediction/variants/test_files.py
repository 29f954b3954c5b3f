"""Effects of variants equal the difference of two predictions; invalid rows keep their place."""

import csv
import gzip
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from model.prediction.predictor import BATCH, Predictor
from model.prediction.variants.columns import VariantColumns
from model.prediction.variants.effects import variant_effects
from model.prediction.variants.files import predict_variants
from model.prediction.variants.request import VariantRequest, check_variants
from model.scoring.scores import score_correlations
from pipeline.errors import UserError
from tests.conftest import small_config
from tests.model.saved_model import save_model

L, R = "TGCATTTTTTTCACATC", "GGTTACGGCTGTT"
ROWS = 2 * BATCH["cpu"] + 9


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("variants") / "model", small_config(Path()).assay)


def valid_variants(seed=0):
    """Make rows of substitutions, insertions and deletions: sequence, alternative, position, alleles, measured."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(ROWS):
        insert = "".join(rng.choice(list("ACGT"), rng.integers(70, 90)))
        start, reference, alternative = rng.integers(0, len(insert) - 3), int(rng.integers(0, 3)), number % 4
        old, new = insert[start : start + reference], "".join(rng.choice(list("ACGT"), alternative))
        if not old and not new:
            new = "A"
        rows.append(
            {
                "id": f"v {number}",
                "sequence": f"{L}{insert}{R}",
                "pos": int(start) + len(L) + 1,
                "ref": old,
                "alt": new,
                "alt_sequence": f"{L}{insert[:start]}{new}{insert[start + reference :]}{R}",
                "measured": float(np.float32(rng.normal())),
            }
        )
    return rows


def write(path: Path, rows, names):
    """Write a table in the format of its suffix."""
    table = [{name: row[key] for name, key in names.items()} for row in rows]
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(table), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in table))
    else:
        opened = gzip.open if path.suffix == ".gz" else open
        with opened(path, "wt", newline="") as file:
            writer = csv.DictWriter(file, list(names), delimiter="," if ".csv" in path.name else "\t")
            writer.writeheader()
            writer.writerows(table)
    return str(path)


PAIRS = {"name": "id", "ref_sequence": "sequence", "alt_sequence": "alt_sequence", "effect": "measured"}
ALLELES = {key: key for key in ("alt", "id", "measured", "pos", "ref", "sequence")}


def two_predictions(predictor, rows):
    """Predict references and alternatives in the batches of the command."""
    return [
        np.concatenate(
            [
                predictor.predict([row[key] for row in rows[at : at + BATCH["cpu"]]])
                for at in range(0, ROWS, BATCH["cpu"])
            ]
        )
        for key in ("sequence", "alt_sequence")
    ]


@pytest.mark.parametrize(
    ("form", "names", "both_strands"),
    [("tsv", PAIRS, False), ("csv.gz", ALLELES, True), ("parquet", ALLELES, False), ("jsonl", PAIRS, True)],
)
def test_effects_are_the_difference_of_two_predictions_bit_for_bit(model, tmp_path, form, names, both_strands):
    rows = valid_variants()
    path = write(tmp_path / f"rows.{form}", rows, names)
    request = VariantRequest(model, [path], str(tmp_path / "out.parquet"), both_strands=both_strands, workers=1)
    result = predict_variants(request)
    assert (result.rows, result.problems, result.problems_file) == (ROWS, {}, None)
    reference, alternative = two_predictions(Predictor(model, both_strands), rows)
    table = pq.read_table(tmp_path / "out.parquet")
    assert np.array_equal(table["reference_prediction"].to_numpy(), reference)
    assert np.array_equal(table["alternative_prediction"].to_numpy(), alternative)
    assert np.array_equal(table["effect"].to_numpy(), alternative - reference)
    assert np.abs(table["effect"].to_numpy()).min() < np.abs(table["effect"].to_numpy()).max()
    kept = ["effect_input" if name == "effect" else name for name in names]
    assert table.column_names == [*kept, "reference_prediction", "alternative_prediction", "effect", "problem"]
    if form == "parquet":
        assert [str(field.type) for field in table.schema][:4] == ["string", "string", "double", "int64"]
    for name, key in zip(kept, names.values(), strict=True):
        assert [str(cell) for cell in table[name].to_pylist()] == [str(row[key]) for row in rows]


@pytest.mark.parametrize("batch", [7, 1000])
def test_effects_in_memory_equal_two_predictions_in_any_batch_size(model, batch):
    rows = valid_variants()
    predictor = Predictor(model)
    usual = variant_effects(predictor, [row["sequence"] for row in rows], [row["alt_sequence"] for row in rows])
    predictor.batch = batch
    references = [row["sequence"] for row in rows]
    result = variant_effects(predictor, references, [(row["pos"], row["ref"], row["alt"]) for row in rows])
    reference, alternative = predictor.predict(references), predictor.predict([row["alt_sequence"] for row in rows])
    assert np.array_equal(result.reference_prediction, reference)
    assert np.array_equal(result.effect, alternative - reference)
    assert result.effect == pytest.approx(usual.effect, abs=1e-5)
    assert result.problems == [None] * ROWS


def test_invalid_rows_keep_their_place_and_are_listed(model, tmp_path):
    rows = valid_variants()[:8]
    good = f"{L}ACGTACGTAC{R}"
    wrong = [
        (good, 20, "G", "T", "reference allele is not in the sequence at this position", "'C' at 19, not 'G'"),
        (good, 99, "A", "T", "position outside the sequence", "99 of 40 bases"),
        (good, 2, "G", "T", "alternative: left adapter missing", ""),
        (good.lower(), 20, "G", "T", "reference: lower-case bases", "'t' at 1"),
        (good, 18, "A", "A" * 999, "alternative: insert too long", ""),
    ]
    wrong[0] = (good, 19, "G", "T", *wrong[0][4:])
    for number, (sequence, position, reference, alternative, *_) in enumerate(wrong):
        rows[number + 1] |= {"sequence": sequence, "pos": position, "ref": reference, "alt": alternative}
    path = write(tmp_path / "rows.csv", rows, ALLELES)
    with Path(path).open("a") as file:
        file.write("A,short line\n")
    result = predict_variants(VariantRequest(model, [path], str(tmp_path / "out.tsv"), workers=1))
    lines = [line.split("\t") for line in (tmp_path / "out.tsv").read_text().splitlines()]
    invalid = [number for number, cells in enumerate(lines[1:], 1) if cells[-3:] == ["nan"] * 3]
    assert invalid == [2, 3, 4, 5, 6, 9]
    assert lines[9] == ["A", "short line", "", "", "", "", "nan", "nan", "nan"]
    listed = [line.split("\t") for line in (tmp_path / "out.problems.tsv").read_text().splitlines()[1:]]
    expected = [[str(row), problem, place] for row, (*_, problem, place) in enumerate(wrong, 2)]
    assert [[row, problem, place] for row, problem, _, place, _ in listed[:5]] == expected
    assert listed[5][:2] == ["9", "2 columns, expected 6"]
    assert result.problems == {problem: 1 for _, problem, *_ in listed}
    (alone,) = Predictor(model).predict([rows[-1]["sequence"]])
    assert float(lines[8][-3]) == pytest.approx(alone, abs=1e-5)


def test_measured_effects_are_correlated(model, tmp_path):
    rows = valid_variants()
    rows[3]["measured"] = None
    path = write(tmp_path / "rows.tsv", rows, PAIRS)
    request = VariantRequest(
        model, [path], str(tmp_path / "out.parquet"), workers=1, variants=VariantColumns(effects=("effect",))
    )
    result = predict_variants(request)
    table = pq.read_table(tmp_path / "out.parquet")
    measured = np.array([np.nan if row["measured"] is None else row["measured"] for row in rows])
    assert result.scores["expression"] == score_correlations(table["effect"].to_numpy(), measured)
    assert result.scores["expression"].rows == ROWS - 1
    assert (
        json.loads(json.dumps(result.as_dict()))["scores"]["expression"]["pearson"]
        == result.scores["expression"].pearson
    )


def test_interrupted_prediction_resumes_to_the_same_bytes(model, tmp_path):
    path = write(tmp_path / "rows.tsv", valid_variants(), PAIRS)
    request = VariantRequest(model, [path], str(tmp_path / "out.csv"), workers=1)
    predict_variants(request)
    whole = (tmp_path / "out.csv").read_bytes()
    (tmp_path / "out.csv").unlink()

    def end_after_one(rows, *_):
        if rows > BATCH["cpu"]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_variants(request, end_after_one)
    assert not (tmp_path / "out.csv").exists()
    assert predict_variants(request).rows_resumed == 2 * BATCH["cpu"]
    assert (tmp_path / "out.csv").read_bytes() == whole
    assert sorted(file.name for file in tmp_path.iterdir()) == ["out.csv", "rows.tsv"]


def test_positions_from_0_are_suggested(model, tmp_path):
    rows = [row | {"pos": row["pos"] - 1} for row in valid_variants() if row["ref"]]
    path = write(tmp_path / "rows.tsv", rows, ALLELES)
    result = predict_variants(VariantRequest(model, [path], str(tmp_path / "out.tsv"), workers=1))
    assert "fix: --first-position 0" in result.hint
    options = VariantColumns(first_position=0)
    request = VariantRequest(model, [path], str(tmp_path / "out.tsv"), workers=1, variants=options)
    assert predict_variants(request).problems == {}
    rows = [row | {"variantPos": row["pos"]} for row in rows]
    path = write(
        tmp_path / "igvf.tsv", rows, {"refAllele": "ref", "altAllele": "alt", "variantPos": "pos", "seq": "sequence"}
    )
    assert predict_variants(VariantRequest(model, [path], str(tmp_path / "out.tsv"), workers=1)).first_position == 0


@pytest.mark.parametrize(
    ("output", "options", "message"),
    [
        ("out.doc", {}, r"ending in \.tsv, \.txt, \.csv, \.parquet"),
        ("rows.tsv", {}, "is an input file, too"),
        ("out.tsv", {"reference": "x"}, "no column x"),
        ("out.tsv", {"effects": ("effect", "name")}, "--effect-column: expected once per label of the model"),
    ],
)
def test_invalid_requests_raise_before_a_row_is_read(model, tmp_path, monkeypatch, output, options, message):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "rows.tsv", valid_variants(), PAIRS)
    with pytest.raises(UserError, match=message):
        check_variants(VariantRequest(model, ["rows.tsv"], output, variants=VariantColumns(**options)))


def test_tables_without_a_valid_row_raise_and_leave_no_file(model, tmp_path):
    rows = [row | {"sequence": row["sequence"].lower()} for row in valid_variants()]
    path = write(tmp_path / "rows.tsv", rows, ALLELES)
    with pytest.raises(UserError, match=r"nothing to predict .* lower-case bases.* assay\.lower_case=upper"):
        predict_variants(VariantRequest(model, [path], str(tmp_path / "out.tsv"), workers=1))
    assert [file.name for file in tmp_path.iterdir()] == ["rows.tsv"]
    wrong = [row | {"pos": "1", "ref": "A"} for row in valid_variants()]  # the first base is the T of the adapter
    path = write(tmp_path / "rows.tsv", wrong, ALLELES)
    with pytest.raises(UserError, match=r"nothing to predict .*; first: row 1, 'T' at 1, not 'A'\)"):
        predict_variants(VariantRequest(model, [path], str(tmp_path / "out.tsv"), workers=1))


def test_repairs_that_remove_a_variant_are_reported(model, tmp_path):
    """A substitution in an adapter is no mismatch to be repaired."""
    good = f"{L}ACGTACGTACGT{R}"
    rows = [{"ref": good, "alt": good[:3] + "G" + good[4:]}, {"ref": good, "alt": good[:20] + "A" + good[21:]}]
    path = write(tmp_path / "rows.tsv", rows, {"ref": "ref", "alt": "alt"})
    overrides = ("assay.adapter_mismatches=1",)
    result = predict_variants(VariantRequest(model, [path], str(tmp_path / "o.tsv"), workers=1, overrides=overrides))
    assert result.problems == {"repairs of the sequence remove the variant": 1}


def test_python_effects_of_invalid_rows_are_nan(model):
    good = f"{L}ACGTACGTAC{R}"
    result = variant_effects(model, [good, good, "acgt"], [(18, "A", "C"), (18, "G", "C"), good])
    assert result.problems[0] is None
    assert "'A' at 18, not 'G'" in result.problems[1]
    assert result.problems[2] == "reference: lower-case bases"
    assert np.isnan(result.effect).tolist() == [False, True, True]
    with pytest.raises(UserError, match="two lists of equal length"):
        variant_effects(model, [good], [])


def test_several_labels_have_three_columns_each(tmp_path):
    model = save_model(tmp_path / "model", small_config(Path()).assay, labels=("Dev", "Hk"))
    rows = valid_variants()[:70]
    rows[2]["alt_sequence"] = "acgt"
    path = write(tmp_path / "rows.tsv", rows, PAIRS)
    effects = VariantColumns(effects=("effect", "effect"))
    request = VariantRequest(model, [path], str(tmp_path / "out.parquet"), workers=1, variants=effects)
    result = predict_variants(request)
    with pytest.warns(UserWarning, match="lower-case"):
        alternative = Predictor(model).predict([row["alt_sequence"] for row in rows])
    reference = Predictor(model).predict([row["sequence"] for row in rows])
    table = pq.read_table(tmp_path / "out.parquet")
    for place, label in enumerate(("Dev", "Hk")):
        effect = table[f"effect_{label}"].to_numpy()
        assert effect == pytest.approx((alternative - reference)[:, place], abs=1e-5, nan_ok=True)
        reference_prediction = table[f"reference_prediction_{label}"].to_numpy()
        assert np.isnan(reference_prediction).tolist() == [number == 2 for number in range(70)]
        assert result.scores[label] == score_correlations(effect, np.array([row["measured"] for row in rows]))
    assert table.column_names[4:7] == ["reference_prediction_Dev", "alternative_prediction_Dev", "effect_Dev"]
    memory = variant_effects(model, [row["sequence"] for row in rows], [row["alt_sequence"] for row in rows])
    assert memory.effect.shape == (70, 2)
    assert memory.effect == pytest.approx(alternative - reference, abs=1e-5, nan_ok=True)
