"""Export a fine-tuned model as one ONNX file, for programs without Python, torch or this project.

The graph reads bases, not tokens: adapters, flanks, k-mers and reading frames are inside, so that no other program has
to compute them. In Python, for example:

    session = onnxruntime.InferenceSession("model.onnx")
    bases = numpy.array(promoters, "S").view(numpy.uint8).reshape(len(promoters), -1)
    (expression,) = session.run(None, {"bases": bases})

The file's properties hold an example promoter and its expression, to test another program with.
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
from pipeline.tokens.kmers import ALPHABET

if TYPE_CHECKING:
    from model.prediction.predictor import Predictor

OPSET = 18
"""The oldest that torch's exporter writes, which most runtimes read."""
COMPARED_PROMOTERS = 16
TOLERANCE = 1e-3
"""Largest difference that float32 explains, relative to the prediction, or absolute below 1."""
STEPS = 4

Values = npt.NDArray[np.float32]
OnStep = Callable[[str], None]
"""Called with the name of each step before it begins, and "" at the end."""


@dataclass(frozen=True)
class ExportResult:
    """The file written. difference: largest between its predictions and the model's; None where not compared."""

    file: str
    bytes: int
    promoters_compared: int
    difference: float | None


def export_onnx(folder: Path, output: Path, on_step: OnStep = lambda _: None) -> ExportResult:
    """Write the model of a folder as one ONNX file, checked, and compared with it where onnxruntime is installed.

    Raises UserError where the extra is not installed, the folder holds no fine-tuned model, the output cannot be
    written, or the file's predictions differ from the model's.
    """
    if output.suffix != ".onnx" or output.is_dir():
        raise UserError(f"{output}: expected the name of a file that ends in .onnx")
    expect_folder(output)
    read_model_facts(folder)
    try:
        import onnx
        import onnxscript  # noqa: F401 (torch's exporter needs it)
    except ImportError as error:
        raise UserError(
            f"{error.name}: not installed; fix, in the project's folder: pip install -e '.[onnx]'"
        ) from None

    import torch  # takes seconds: mistakes are reported before

    from model.prediction.predictor import Predictor

    on_step("loading the model")
    predictor = Predictor(folder, device=torch.device("cpu"))  # in float32, as the file will be
    promoters = example_promoters(predictor.assay, COMPARED_PROMOTERS)
    expected = predictor.predict_usable(pa.array(promoters))
    with new_file(output) as temporary:
        on_step("tracing the graph")
        graph = _trace(predictor)
        _add_documentation(graph, predictor, promoters[-1], float(expected[-1]))
        on_step("writing the file")
        onnx.save(graph, temporary)
        onnx.checker.check_model(temporary, full_check=True)
        on_step("comparing it with the model")
        predicted = _run(temporary, promoters)
        difference = None if predicted is None else largest_difference(output, predicted, expected)
        size_bytes = temporary.stat().st_size
    on_step("")
    return ExportResult(str(output), size_bytes, 0 if predicted is None else len(promoters), difference)


def largest_difference(output: Path, predicted: Values, expected: Values) -> float:
    """Compare the file's predictions with the model's: (promoters,) each.

    Raises UserError where they differ by more than TOLERANCE.
    """
    difference = np.abs(predicted - expected)
    if not np.allclose(predicted, expected, rtol=TOLERANCE, atol=TOLERANCE):
        worst = int(difference.argmax())  # a NaN, if there is one
        raise UserError(
            f"{output}: not written: its predictions differ from the model's; expected {expected[worst]:.6g}, got "
            f"{predicted[worst]:.6g} in onnxruntime {version('onnxruntime')}; fix: the versions in constraints.txt"
        )
    return float(difference.max())


def encode_bases(promoters: list[str]) -> npt.NDArray[np.uint8]:
    """Encode one promoter or more as the graph reads them: (promoters, columns) ASCII codes, zeros past each end."""
    return np.array(promoters, "S").view(np.uint8).reshape(len(promoters), -1)


def example_promoters(assay: Assay, number: int) -> list[str]:
    """Draw promoters of an assay, from the longest insert to the shortest; the same on each call."""
    draw = np.random.default_rng(0)
    lengths = np.linspace(assay.max_insert, assay.min_insert, number).astype(int)
    inserts = ["".join(draw.choice(list(ALPHABET), length)) for length in lengths]
    return [assay.left_adapter + insert + assay.right_adapter for insert in inserts]


def _trace(predictor: "Predictor") -> Any:
    """Trace the model as an onnx.ModelProto, without the exporter's notes of source code and paths."""
    import torch
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    from model.export.onnx_graph import SequenceRegressor

    model = SequenceRegressor(predictor.model, predictor.assay, predictor.k, predictor.view).eval()
    example = torch.from_numpy(encode_bases(example_promoters(predictor.assay, 3)))
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)  # the exporter logs and warns for its developers
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
            f"{str(error).splitlines()[0]}; fix: the versions in constraints.txt"
        ) from None
    finally:
        logging.disable(level)
    assert program is not None
    ClearMetadataAndDocStringPass()(program.model)
    return program.model_proto


def _add_documentation(graph: Any, predictor: "Predictor", promoter: str, expression: float) -> None:
    """Write the model's facts, how to use the file, and an example into the file."""
    assay = predictor.assay
    graph.producer_name, graph.producer_version = "promoter-bert", version("promoter-bert")
    graph.doc_string = (
        "Expression of promoters, on the scale of the training labels. Input bases: uint8 (promoters, columns), each "
        f"row the ASCII bases of a promoter, {assay.left_adapter}...insert...{assay.right_adapter}, then zeros; both "
        "sizes are free, but there must be one promoter at least. Output expression: float32 (promoters,); NaN for a "
        f"row that is invalid: bases other than {ALPHABET}, an adapter missing, or an insert of other than "
        f"{assay.min_insert} to {assay.max_insert} bases. Flanks, k-mers and the mean over reading frames are in the "
        "graph. Properties: promoter_bert, the model's assay and tokens as JSON; example_promoter and "
        "example_expression, to test a program with."
    )
    facts = json.dumps(predictor.model.config.promoter_bert, sort_keys=True)
    graph.metadata_props.add(key="promoter_bert", value=facts)
    graph.metadata_props.add(key="example_promoter", value=promoter)
    graph.metadata_props.add(key="example_expression", value=f"{expression:.6g}")


def _run(file: Path, promoters: list[str]) -> Values | None:
    """Predict with the file: (promoters,); None where onnxruntime is not installed."""
    try:
        import onnxruntime
    except ImportError:
        return None
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (expression,) = session.run(None, {"bases": encode_bases(promoters)})
    return np.asarray(expression)
