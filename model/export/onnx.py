"""Export of a fine-tuned model as one ONNX file, for programs without Python, torch or this project.

The graph reads bases, not tokens: it handles adapters, flanks, k-mers and reading frames itself, so that no other
program has to. In Python, for example:

    session = onnxruntime.InferenceSession("model.onnx")
    bases = numpy.array(promoters, "S").view(numpy.uint8).reshape(len(promoters), -1)
    (expression,) = session.run(None, {"bases": bases})

The properties of the file hold an example promoter and its expression, for a test of the other program.
"""

import json
import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from model.artifacts.model_directory import read_model_facts
from pipeline.config.schema import Assay
from pipeline.errors import UserError
from pipeline.io.atomic import expect_folder, new_file
from pipeline.runtime.text import name_sequences
from pipeline.tokens.kmers import ALPHABET

if TYPE_CHECKING:
    from model.prediction.predictor import Predictor

OPSET = 18
"""ONNX operator set: the oldest that torch's exporter writes, because most runtimes read it."""
TEST_PROMOTERS = 16
"""Promoters whose predictions by file and model are compared."""
TOLERANCE = 1e-3
"""Largest difference that float32 rounding explains: relative to the prediction, absolute for predictions below 1."""
STEPS = 4
"""Number of named steps of `export_onnx`."""

Values = npt.NDArray[np.float32]
INSTALL = "pip install -c constraints.txt -e '.[onnx]' in the project folder"
OnStep = Callable[[str], None]
"""Called with the name of each step before it begins, and "" at the end."""


@dataclass(frozen=True)
class ExportResult:
    """File written by `export_onnx`.

    bytes: its size. difference: largest absolute difference between its predictions and the model's; None without
    onnxruntime.
    """

    file: str
    bytes: int
    promoters_compared: int
    difference: float | None


def export_onnx(folder: Path, output: Path, on_step: OnStep = lambda _: None) -> ExportResult:
    """Write the model of a folder as one checked ONNX file; with onnxruntime, compare its predictions with the model's.

    on_step: called with the name of each step before it begins. Raises UserError if the extra is not installed, the
    folder holds no fine-tuned model, the output cannot be written, or the predictions differ.
    """
    if output.suffix != ".onnx" or output.is_dir():
        raise UserError(f"{output}: expected a name ending in .onnx")
    expect_folder(output)
    read_model_facts(folder)
    try:
        import onnx
        import onnxscript  # noqa: F401 (torch's exporter needs it)
    except ImportError as error:
        raise UserError(f"{error.name}: not installed; fix: pip install -e '.[onnx]' in the project folder") from None

    import torch  # takes seconds, so wrong arguments are reported before

    from model.prediction.predictor import Predictor

    on_step("loading the model")
    predictor = Predictor(folder, device=torch.device("cpu"))  # float32, as in the file
    promoters = example_promoters(predictor.assay, TEST_PROMOTERS)
    expected = predictor.predict_valid(pa.array(promoters))
    with new_file(output) as temporary:
        on_step("tracing the graph")
        graph = _trace(predictor)
        _add_documentation(graph, predictor, promoters[-1], expected[-1])
        on_step("writing the file")
        onnx.save(graph, temporary)
        onnx.checker.check_model(temporary, full_check=True)
        on_step("comparing predictions")
        predicted = _run(temporary, promoters)
        difference = None if predicted is None else largest_difference(output, predicted, expected)
        size_bytes = temporary.stat().st_size
    on_step("")
    return ExportResult(str(output), size_bytes, 0 if predicted is None else len(promoters), difference)


def largest_difference(output: Path, predicted: Values, expected: Values) -> float:
    """Return the largest absolute difference of the file's and the model's predictions: float32 of the same shape.

    Raises UserError if one is above TOLERANCE.
    """
    difference = np.abs(predicted - expected)
    if not np.allclose(predicted, expected, rtol=TOLERANCE, atol=TOLERANCE):
        worst = np.unravel_index(difference.argmax(), difference.shape)  # a NaN, if there is one
        raise UserError(
            f"{output}: not written: its predictions differ from the model's; expected {expected[worst]:.6g}, got "
            f"{predicted[worst]:.6g} in onnxruntime {version('onnxruntime')}; fix: {INSTALL}"
        )
    return float(difference.max())


def encode_bases(promoters: list[str]) -> npt.NDArray[np.uint8]:
    """Encode promoters (at least one) for the graph: ASCII codes, uint8 (promoters, columns), 0 past each end."""
    return np.array(promoters, "S").view(np.uint8).reshape(len(promoters), -1)


def example_promoters(assay: Assay, number: int) -> list[str]:
    """Draw random promoters of an assay, from the longest insert to the shortest; the same in each call."""
    draw = np.random.default_rng(0)
    lengths = np.linspace(assay.max_insert, assay.min_insert, number).astype(int)
    inserts = ["".join(draw.choice(list(ALPHABET), length)) for length in lengths]
    return [assay.left_adapter + insert + assay.right_adapter for insert in inserts]


def _trace(predictor: "Predictor") -> Any:
    """Trace the model as an onnx.ModelProto, without the exporter's metadata of source code and paths."""
    import torch
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    from model.export.onnx_graph import SequenceRegressor

    model = SequenceRegressor(predictor.model, predictor.assay, predictor.k, predictor.token_mode).eval()
    example = torch.from_numpy(encode_bases(example_promoters(predictor.assay, 3)))
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)  # the exporter's logs and warnings are for its developers
    try:
        with warnings.catch_warnings(action="ignore"):
            program = torch.onnx.export(
                model,
                (example,),
                dynamo=True,
                opset_version=OPSET,
                input_names=["bases"],
                output_names=["expression"],
                dynamic_shapes=({0: "promoters", 1: "columns"},),
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        raise UserError(
            f"torch {torch.__version__} with onnxscript {version('onnxscript')}: cannot export this model: "
            f"{str(error).splitlines()[0]}; fix: {INSTALL}"
        ) from None
    finally:
        logging.disable(level)
    assert program is not None
    ClearMetadataAndDocStringPass()(program.model)
    return program.model_proto


def _add_documentation(graph: Any, predictor: "Predictor", promoter: str, expression: Values | np.float32) -> None:
    """Add metadata to the file: the model's settings, a description of input and output, and an example.

    expression: of the example promoter, a scalar, or (labels,) for several labels.
    """
    assay, name, several = predictor.assay, predictor.assay.name, len(predictor.labels) > 1
    shape = f"({name}s, {len(predictor.labels)}), a column per label ({', '.join(predictor.labels)})"
    facts = predictor.model.config.promoter_bert
    graph.producer_name, graph.producer_version = "promoter-bert", version("promoter-bert")
    graph.doc_string = (
        f"Expression of {name}s, on the scale of the training labels. Input bases: uint8 ({name}s, columns), each "
        f"row the ASCII bases of {name_sequences('a promoter', name)}, {assay.left_adapter}...insert..."
        f"{assay.right_adapter}, then zeros; both sizes are free, but there must be one {name} at least. Output "
        "expression: float32 "
        f"{shape if several else f'({name}s,)'}; NaN for a "
        f"row that is invalid: bases other than {ALPHABET}, an adapter missing, or an insert of other than "
        f"{assay.min_insert} to {assay.max_insert} bases. Flanks, k-mers and the mean over reading frames are in the "
        f"graph{', and the expected value over bins' if facts.get('bins') else ''}. Properties: promoter_bert, the "
        "model's assay and tokens as JSON; example_promoter and "
        f"example_expression, to test a program with{', one number per label' if several else ''}."
    )
    graph.metadata_props.add(key="promoter_bert", value=json.dumps(facts, sort_keys=True))
    graph.metadata_props.add(key="example_promoter", value=promoter)
    numbers = " ".join(f"{value:.6g}" for value in np.atleast_1d(expression))
    graph.metadata_props.add(key="example_expression", value=numbers)


def _run(file: Path, promoters: list[str]) -> Values | None:
    """Predict with the file: float32 (promoters,) or (promoters, labels); None without onnxruntime."""
    try:
        import onnxruntime
    except ImportError:
        return None
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (expression,) = session.run(None, {"bases": encode_bases(promoters)})
    return np.asarray(expression)
