"""Read files as a build does, for tests of the readers."""

import duckdb

from model.config import load_config
from pipeline.dataset.input.files import find_input
from pipeline.dataset.input.row_count import count_rows
from pipeline.dataset.input.view import define_input, input_error
from tests.conftest import ROOT

ASSAY = load_config(ROOT / "config.yaml").assay.model_copy(
    update={"left_adapter": "", "right_adapter": "", "min_expression": -1e9, "max_expression": 1e9, "max_insert": 10**9}
)
"""Any DNA is a promoter, so that a sequence that was cut or glued is not rejected."""


def read_rows(names, columns=None, *, labelled=True):
    """Read (line, sequence, label, reject code) of each row. The byte count of the rows must agree."""
    source = find_input([str(name) for name in names], columns, labelled)
    with duckdb.connect() as connection:
        try:
            define_input(connection, ASSAY, source)
            rows = connection.execute(
                "select line, sequence, try_cast(expression as double), reject_code(fields, sequence, expression, 1) "
                "from input"
            ).fetchall()
        except duckdb.Error as error:
            raise input_error(source, error) from None
    assert count_rows(source) == len(rows)
    return rows


def valid_rows(names, columns=None, *, labelled=True):
    """Read (sequence, label) of each valid row."""
    return [(sequence, label) for _, sequence, label, code in read_rows(names, columns, labelled=labelled) if not code]
