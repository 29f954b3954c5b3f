"""Fine-tuning on overlapping tokens and both strands, to predictions by the project and by stock transformers."""

import json
import re

import pytest

from tests.integration.conftest import by_the_model_card
from tests.integration.test_train import copy  # noqa: F401

pytestmark = [pytest.mark.processes, pytest.mark.long]

STOCK = """
import json
from transformers import AutoModelForSequenceClassification, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained("runs/both/model")
model = AutoModelForSequenceClassification.from_pretrained("runs/both/model").eval()
assay, k = model.config.promoter_bert["assay"], model.config.promoter_bert["k"]
out = []
for line in open("some.tsv"):
    promoter = line.split()[0]
    insert = promoter[len(assay["left_adapter"]) : len(promoter) - len(assay["right_adapter"])]
    flank = assay["flank"]
    extended = assay["upstream"][len(assay["upstream"]) - flank :] + insert + assay["downstream"][:flank]
    kmers = " ".join(extended[i : i + k] for i in range(len(extended) - k + 1))
    out.append(model(**tokenizer(kmers, return_tensors="pt")).logits.item())
print(json.dumps(out))
"""


def test_overlapping_tokens_and_both_strands(copy):  # noqa: F811
    settings = ["finetune.tokens=overlapping", "finetune.reverse_complement=true", "pretrain.reverse_complement=true"]
    done = copy.run("python", "train.py", *settings, "run.name=both")
    assert re.search(r"Pearson", done.stdout)
    rows = (copy.folder / "train_sequences.txt").read_text().splitlines(keepends=True)[:20]
    (copy.folder / "some.tsv").write_text("".join(rows))
    copy.run("promoter-bert", "predict", "runs/both/model", "some.tsv", "-o", "some.predicted.tsv")
    predicted = [float(row.split("\t")[1]) for row in (copy.folder / "some.predicted.tsv").read_text().splitlines()]
    by_card, by_predict = by_the_model_card(copy, "both")
    assert by_card == pytest.approx(by_predict, abs=1e-4)
    assert predicted == pytest.approx(json.loads(copy.run("python", "-c", STOCK).stdout), abs=1e-4)
