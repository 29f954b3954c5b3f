"""Example of a promoter for a model card: the output of the stock model for it, and its prediction."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import torch
from transformers import PreTrainedTokenizerFast

from model.artifacts.model_directory import read_model_facts
from model.prediction.predictor import Predictor

INSERT_BASES = 80
"""Length of the insert for a model that does not record the lengths of its training inserts."""


@dataclass(frozen=True)
class PredictionExample:
    """Promoter with the numbers of a model, one per label.

    promoter: adapters included. one_pass: logits of the stock model, as `pipeline("text-classification")` returns them.
    prediction: as `promoter-bert predict` writes it.
    """

    promoter: str
    one_pass: list[float]
    prediction: list[float]


def compute_example(folder: Path) -> PredictionExample:
    """Compute the numbers of the model in a folder, on the CPU. Raises UserError if the model cannot be read."""
    predictor = Predictor(folder, device=torch.device("cpu"))
    promoter = draw_promoter(read_model_facts(folder))
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    with torch.inference_mode():
        tokens = tokenizer(promoter, return_tensors="pt", return_token_type_ids=False)
        one_pass = predictor.model(**tokens).logits[0]
    prediction = predictor.predict_valid(pa.array([promoter]))
    return PredictionExample(promoter, one_pass.tolist(), prediction.flatten().tolist())


def draw_promoter(facts: Mapping[str, Any]) -> str:
    """Draw a random promoter as long as the longest of training; the same in each call. facts: of read_model_facts.

    It is not a measured one, because cards are published and data may be confidential.
    """
    assay = facts["assay"]
    usual = min(max(INSERT_BASES, assay["min_insert"]), assay["max_insert"])
    _, longest = facts.get("insert_lengths") or (usual, usual)
    return str(assay["left_adapter"] + "".join(Random(0).choices("ACGT", k=longest)) + assay["right_adapter"])
