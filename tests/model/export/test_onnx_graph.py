"""The graph on bases predicts the same values as `predict`, and NaN for rows with a problem."""

import random

import duckdb
import numpy as np
import pyarrow as pa
import pytest
import torch

from model.export.onnx import encode_bases
from model.export.onnx_graph import SequenceRegressor
from model.prediction.predictor import Predictor
from pipeline.dataset.input.view import define_rules
from tests.model.saved_model import save_model

L, R = "TGCATTTTTTTCACATC", "GGTTACGGCTGTT"
LONGEST = 40
LENIENT = {"lower_case": "upper", "uracil": "thymine", "iupac": "n", "missing_adapters": "add"}
BARE = {"left_adapter": "", "right_adapter": "", "flank": 0, "min_insert": 0}


def predict(predictor, sequences):
    """Return the values that `predict` writes: NaN for a problem."""
    with duckdb.connect() as connection:
        define_rules(connection, predictor.assay)
        connection.register("rows", pa.table({"place": range(len(sequences)), "sequence": sequences}))
        rows = connection.sql(
            "select repaired(sequence) as sequence, sequence_problem(repaired(sequence)) is null as valid "
            "from rows order by place"
        ).to_arrow_table()
    valid = rows["valid"].to_numpy()
    assert valid.sum() > 100
    assert (~valid).sum() > 100
    out = np.full(len(sequences), np.nan, np.float32)
    out[valid] = predictor.predict_valid(rows["sequence"].filter(rows["valid"]))
    return out


def draw_rows(draw, number):
    """Draw valid and invalid rows: too long, bare, with one adapter, with other characters."""
    rows = ["", L, R, L + R, L[:-1] + R, L + R[1:], "A" * 300]
    while len(rows) < number:
        odd = draw.choice(["", "", "a", "u", "U", "R", "acgtu", "X", "-", " ", "\n", "é", "acgtnURYSWKMBDHVrq"])
        insert = "".join(draw.choices("ACGT" * 8 + "N" + odd, k=draw.randrange(LONGEST + 3)))
        row = draw.choice([L, L, L, ""]) + insert + draw.choice([R, R, R, ""])
        rows.append(draw.choice([row, row, row, row.lower(), row.replace("T", "U")]))
    return rows


@pytest.mark.parametrize(
    ("token_mode", "k", "rules"),
    [
        ("frames", 3, {}),
        ("overlapping", 4, LENIENT),
        ("frames", 4, BARE),
        ("overlapping", 1, {"lower_case": "upper"}),
        ("frames", 8, {**LENIENT, "lower_case": "reject", "min_insert": 5}),
        ("frames", 2, {**BARE, "uracil": "thymine", "missing_adapters": "add"}),
    ],
)
def test_graph_predicts_as_predict(made, tmp_path, token_mode, k, rules):
    assay = made.config.assay.model_copy(update={"max_insert": LONGEST, **rules})
    predictor = Predictor(save_model(tmp_path, assay, token_mode, k=k), device=torch.device("cpu"))
    model = SequenceRegressor(predictor.model, assay, k, token_mode).eval()
    rows = draw_rows(random.Random(k), 1000)
    expected = predict(predictor, rows)
    for some in (slice(0, 6), slice(0, 7), slice(100, 101), slice(None)):
        with torch.inference_mode():
            values = model(torch.from_numpy(encode_bases([row.encode() for row in rows[some]]))).numpy()
        np.testing.assert_allclose(values, expected[some], rtol=1e-4, atol=1e-4)
