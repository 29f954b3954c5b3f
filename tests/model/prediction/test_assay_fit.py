"""Sequences that are not of the model's assay give one warning."""

import json
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pytest

from model.artifacts.model_directory import read_model_facts
from model.prediction.assay_fit import EARLY_ROWS, AssayFit
from model.prediction.files import predict_files
from model.prediction.inputs import Part
from model.prediction.request import PredictionRequest
from pipeline.config.schema import Assay
from pipeline.dataset.database import open_dataset, training_insert_lengths
from pipeline.errors import UserError
from tests.conftest import small_config
from tests.model.saved_model import save_model

L, R = "TGCATTTTTTTCACATC", "GGTTACGGCTGTT"
ASSAY = small_config(Path()).assay


def test_the_first_unusual_row_is_an_example():
    warnings = []
    fit = AssayFit({"assay": BARE.model_dump(), "insert_lengths": [8, 9]}, BARE, warnings.append)
    sequences = ["ACGTACGT", "AX", "ACG", "ACGT"]
    for first, names in ((0, "abcd"), (4, "efgh")):
        problems = pa.array([None, "letters other than ACGTN", None, None])
        columns = {"name": list(names), "sequence": sequences, "repaired": sequences, "problem": problems}
        part = Part(first, pa.table(columns))
        fit.add(part.table["sequence"], part.valid_sequences, part.describe_valid)
    fit.finish()
    assert "4 of 6 have inserts of 3 to 4 bases" in warnings[0]
    assert "such as row 3 (c)" in warnings[0]


def warning_of(inserts, *, adapters=True, seen=(70, 90), assay=ASSAY, size=500):
    facts = {"assay": assay.model_dump()} | ({"insert_lengths": list(seen)} if seen else {})
    warnings = [""]
    fit = AssayFit(facts, assay, warnings.append)
    whole = [f"{assay.left_adapter}{'A' * bases}{assay.right_adapter}" for bases in inserts]
    written = whole if adapters else ["A" * bases for bases in inserts]
    for at in range(0, len(whole), size):
        fit.add(pa.chunked_array([written[at : at + size]], pa.string()), pa.array(whole[at : at + size], pa.string()))
    fit.finish()
    assert len(warnings) <= 2
    return warnings[-1]


BARE = Assay.model_validate(ASSAY.model_dump() | {"left_adapter": "", "right_adapter": ""})
ADDS = Assay.model_validate(ASSAY.model_dump() | {"missing_adapters": "add"})


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"inserts": [70, 80, 90]}, []),
        ({"inserts": []}, []),
        ({"inserts": [80] * 19 + [91]}, []),
        ({"inserts": [80] * 9 + [91]}, ["1 of 10 have inserts of 91 bases", "trained on 70 to 90 bases"]),
        ({"inserts": [69, 249, 80]}, ["2 of 3 have inserts of 69 to 249 bases"]),
        ({"inserts": [249], "seen": None}, []),
        ({"inserts": [249] * EARLY_ROWS + [80] * 9}, [f"assay (first {EARLY_ROWS:,} rows): 1,000 of 1,000 have"]),
        ({"inserts": [80] * EARLY_ROWS + [249] * 400}, ["assay: 400 of 1,400 have"]),
        ({"inserts": [80, 80], "adapters": False}, [f"none of 2 has its adapters {L}...{R}"]),
        ({"inserts": [249, 249], "adapters": False}, ["none of 2 has", "2 of 2 have inserts of 249 bases"]),
        ({"inserts": [80], "adapters": False, "assay": ADDS}, []),
        ({"inserts": [80], "adapters": False, "assay": BARE}, []),
        ({"inserts": [99], "seen": (80, 80), "assay": BARE}, ["inserts of 99 bases", "trained on 80 bases"]),
    ],
)
def test_differences_from_the_assay_are_described(options, parts):
    text = warning_of(**options)
    assert all(part in text for part in parts)
    assert bool(text) == bool(parts)
    if parts:
        assert text.startswith("the sequences seem not to be of the model's assay")


def test_alternatives_of_variants_count_and_a_share_of_zero_reports_one():
    facts, warnings = {"assay": ASSAY.model_dump(), "insert_lengths": [70, 90]}, []
    for share, alternatives in ((0, [91]), (0.5, [91] * 19), (0.5, [91] * 18)):
        fit = AssayFit(facts, ASSAY, warnings.append, share)
        fit.add_lengths(pa.array([f"{L}{'A' * bases}{R}" for bases in alternatives]))
        references = pa.array([f"{L}{'A' * 80}{R}"] * 19)
        fit.add(references, references)
        fit.finish()
    assert ["1 of 20 have" in warnings[0], "19 of 38 have" in warnings[1], len(warnings)] == [True, True, 2]


def test_predict_warns_once_and_before_the_error(tmp_path):
    folder = save_model(tmp_path / "model", ASSAY)
    settings = json.loads((folder / "config.json").read_text())
    settings["promoter_bert"]["insert_lengths"] = [70, 90]
    (folder / "config.json").write_text(json.dumps(settings))
    assert read_model_facts(folder)["insert_lengths"] == [70, 90]
    (tmp_path / "rows.txt").write_text("ACGT" * 30 + "\n" + "ACGT" * 32 + "\n")

    def predict(*overrides):
        warnings = []
        request = PredictionRequest(
            folder, [str(tmp_path / "rows.txt")], str(tmp_path / "out.tsv"), workers=1, overrides=overrides
        )
        with suppress(UserError):
            predict_files(request, warn=warnings.append)
        return warnings

    (first,) = predict()
    assert "none of 2 has its adapters" in first
    (second,) = predict("assay.missing_adapters=add")
    assert "none of 2 has its adapters" in second
    assert "2 of 2 have inserts of 120 to 128 bases" in second
    (tmp_path / "rows.txt").write_text(f"{L}{'ACGT' * 20}{R}\n")
    assert predict() == []


@pytest.mark.parametrize("value", [[1], [1, 2, 3], "80", ["a", "b"]])
def test_invalid_lengths_in_a_model_directory_raise(tmp_path, value):
    folder = save_model(tmp_path / "model", ASSAY)
    settings = json.loads((folder / "config.json").read_text())
    settings["promoter_bert"]["insert_lengths"] = value
    (folder / "config.json").write_text(json.dumps(settings))
    with pytest.raises(UserError, match=r"promoter_bert\.insert_lengths"):
        read_model_facts(folder)


def test_training_insert_lengths_are_those_of_the_training_split(made):
    with open_dataset(made.config.dataset.path) as connection:
        rows = connection.execute("select sequence from finetune where split = 'train'").fetchall()
    lengths = [len(sequence) - len(L) - len(R) for (sequence,) in rows]
    assert training_insert_lengths(made.config.dataset.path) == (min(lengths), max(lengths))
    assert min(lengths) < max(lengths)
