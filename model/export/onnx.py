"""A trained model -> one ONNX file, for programs without Python, torch or this project.

The graph takes letters, not tokens: adapters, flanks, k-mers and reading frames are the model's own affair, and each
program that had to make them would be one more place to get them wrong. Python, for instance:

    session = onnxruntime.InferenceSession("model.onnx")
    bases = numpy.array(promoters, "S").view(numpy.uint8).reshape(len(promoters), -1)
    (expression,) = session.run(None, {"bases": bases})

It holds a promoter and its expression, too, to try another program on.
"""

import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from model.artifacts.model_directory import facts_of_model
from pipeline.config.schema import Assay
from pipeline.errors import UserError
from pipeline.io.atomic import expect_folder, new_file
from pipeline.tokens.kmers import ALPHABET

if TYPE_CHECKING:
    from model.prediction.predictor import Predictor

OPSET = 18
"""The oldest that torch's exporter writes: the more runtimes read it."""
COMPARED = 16
"""Promoters on which the file is compared with the model."""
TOLERANCE = 1e-3
"""Differences that float32 explains, relative to the prediction, or absolute for those below 1."""
STEPS = 4

Predictions = npt.NDArray[np.float32]
Say = Callable[[str], None]
"""Called with the name of each step before it begins, and "" when all are done."""


@dataclass(frozen=True)
class Exported:
    """The file written. difference: largest between its predictions and the model's; None where it was not compared."""

    file: str
    bytes: int
    promoters_compared: int
    difference: float | None


def export_onnx(folder: Path, output: Path, say: Say = lambda _: None) -> Exported:
    """Write a model that train.py wrote as one file, checked, and compared where onnxruntime is installed.

    Raises UserError where the extra is not installed, the folder holds no such model, the output cannot be written, or
    the file would predict otherwise than the model.
    """
    if output.suffix != ".onnx" or output.is_dir():
        raise UserError(f"{output}: expected the name of a file that ends in .onnx")
    expect_folder(output)
    facts_of_model(folder)
    onnx = _tools()

    import torch  # takes seconds: a mistake is told before

    from model.prediction.predictor import Predictor

    say("loading the model")
    predictor = Predictor(folder, device=torch.device("cpu"))  # in float32, as the file will be
    promoters = drawn_promoters(predictor.assay, COMPARED)
    expected = predictor.predict_usable(pa.array(promoters))
    with new_file(output) as temporary:
        say("tracing the graph")
        graph = _traced(predictor)
        _describe(graph, predictor, promoters[-1], float(expected[-1]))
        say("writing the file")
        onnx.save(graph, temporary)
        onnx.checker.check_model(temporary, full_check=True)
        say("comparing it with the model")
        found = _run(temporary, promoters)
        difference = None if found is None else largest_difference(output, found, expected)
        size = temporary.stat().st_size
    say("")
    return Exported(str(output), size, 0 if found is None else len(promoters), difference)


def largest_difference(output: Path, found: Predictions, expected: Predictions) -> float:
    """Between the file's predictions and the model's, (promoters,) each.

    Raises UserError where it is more than float32 explains.
    """
    apart = np.abs(found - expected)
    if not np.allclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE):
        worst = int(apart.argmax())  # a NaN, if there is one
        raise UserError(
            f"{output}: not written: of a promoter for which the model says {expected[worst]:.6g}, the file makes "
            f"{found[worst]:.6g} in onnxruntime {version('onnxruntime')}; try the versions of constraints.txt"
        )
    return float(apart.max())


def letters(promoters: list[str]) -> npt.NDArray[np.uint8]:
    """What the graph takes: (promoters, letters of the longest), zeros past each end. Of one promoter at least."""
    return np.array(promoters, "S").view(np.uint8).reshape(len(promoters), -1)


def drawn_promoters(assay: Assay, number: int) -> list[str]:
    """Promoters of an assay, the same each time, from the shortest insert to the longest."""
    draw = np.random.default_rng(0)
    lengths = np.linspace(assay.max_insert, assay.min_insert, number).astype(int)
    inserts = ["".join(draw.choice(list(ALPHABET), length)) for length in lengths]
    return [assay.left_adapter + insert + assay.right_adapter for insert in inserts]


def _tools() -> Any:
    """The package onnx, and onnxscript, which torch's exporter needs."""
    try:
        import onnx
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(f"{error.name} is not installed; in the project's folder: pip install -e '.[onnx]'") from None
    return onnx


def _traced(predictor: "Predictor") -> Any:
    """The graph as an onnx.ModelProto, without what the exporter notes of the code and its place on this machine."""
    import torch
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    from model.export.onnx_graph import ReadsLetters

    model = ReadsLetters(predictor.model, predictor.assay, predictor.k, predictor.view).eval()
    example = torch.from_numpy(letters(drawn_promoters(predictor.assay, 3)))
    try:
        with _quiet():
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
            f"torch {torch.__version__} with onnxscript {version('onnxscript')} cannot export this model; try the "
            f"versions of constraints.txt: {str(error).splitlines()[0]}"
        ) from None
    assert program is not None
    ClearMetadataAndDocStringPass()(program.model)
    return program.model_proto


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep from the user what the exporter notes for its own developers."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _describe(graph: Any, predictor: "Predictor", promoter: str, expression: float) -> None:
    """Write into the file what its user must know."""
    assay = predictor.assay
    graph.producer_name, graph.producer_version = "promoter-bert", version("promoter-bert")
    graph.doc_string = (
        "Expression of promoters, on the scale of the training labels. Input bases: uint8 (promoters, columns), each "
        f"row the ASCII letters of a promoter, {assay.left_adapter}...insert...{assay.right_adapter}, then zeros; both "
        "sizes are free, but there must be one promoter at least. Output expression: float32 (promoters,); NaN for a "
        f"row that is no promoter: letters other than {ALPHABET}, an adapter missing, or an insert of other than "
        f"{assay.min_insert} to {assay.max_insert} bases. Flanks, k-mers and the mean over reading frames are in the "
        "graph. Properties: promoter_bert, what the model knows of its assay, as JSON; example_promoter and "
        "example_expression, to try a program on."
    )
    facts = {
        "promoter_bert": json.dumps(predictor.model.config.promoter_bert, sort_keys=True),
        "example_promoter": promoter,
        "example_expression": f"{expression:.6g}",
    }
    for key, value in facts.items():
        graph.metadata_props.add(key=key, value=value)


def _run(file: Path, promoters: list[str]) -> Predictions | None:
    """What the file predicts; None where onnxruntime is not installed."""
    try:
        import onnxruntime
    except ImportError:
        return None
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (expression,) = session.run(None, {"bases": letters(promoters)})
    return np.asarray(expression)
