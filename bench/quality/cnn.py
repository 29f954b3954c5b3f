"""Convolutional network on one-hot bases: a baseline for BERT, with the same splits and data loader.

    python -m bench.quality.cnn shards/k3                                    1.5 million parameters, for a GPU
    OMP_NUM_THREADS=1 python -m bench.quality.cnn shards/k3 --size small     82,249 parameters, for one CPU core

`promoter-bert baseline cnn` trains the same network (model/baselines) with settings chosen by the number of rows.
Here all settings are free. The weights with the highest validation Pearson are scored on finetune/test.

--predict FILE writes predictions of the promoters in a file, for `promoter-bert score`. --config has their adapters and
flanks: those of the shards.

With one thread, equal seeds give equal numbers. Settings for fewer than 50,000 rows, tuned with --size small: --epochs
20 for 8,000 rows, --epochs 20 --batch 32 for 1,000 rows.
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import torch

from model.baselines.cnn import EVALUATION_BATCH, LEARNING_RATE, CnnSettings, CnnTraining, Values
from model.baselines.cnn_network import SIZES
from model.baselines.cnn_optimizer import WEIGHT_DECAY, Optimizer
from model.config import load_config
from model.prediction.validate import repaired
from model.scoring.metrics import pearson, spearman
from pipeline.config.schema import Assay
from pipeline.errors import UserError
from pipeline.paths import ROOT
from pipeline.tokens.kmers import encode_promoters
from pipeline.tokens.padding import pad_tokens
from pipeline.tokens.reverse_complement import reverse_complement


@dataclass(frozen=True)
class CnnResult:
    """Result of a training. best_epoch: counted from 1; seconds: of all epochs with their validations.

    pearson, spearman: on finetune/test; both_pearson, both_spearman: of the mean prediction over both strands, None
    unless trained on both; promoters_per_second: of training, without validation.
    """

    parameters: int
    train_rows: int
    test_rows: int
    epochs: int
    best_epoch: int
    valid_pearson: float
    pearson: float
    spearman: float
    both_pearson: float | None
    both_spearman: float | None
    seconds: float
    promoters_per_second: float


class Baseline(CnnTraining):
    """Training with a score on finetune/test."""

    def train(self, emit: Callable[[str], None]) -> CnnResult:
        """Train, and score the best weights. emit: called with one line per epoch.

        Raises UserError if the loss is not finite.
        """
        fit = self.fit(emit)
        prediction, label = self.predict("test")
        both = (prediction + self.predict_other_strand("test")) / 2 if self.settings.reverse_complement else None
        return CnnResult(
            parameters=fit.parameters,
            train_rows=fit.train_rows,
            test_rows=len(label),
            epochs=self.settings.epochs,
            best_epoch=fit.best_epoch,
            valid_pearson=fit.valid_pearson,
            pearson=pearson(prediction, label),
            spearman=spearman(prediction, label),
            both_pearson=None if both is None else pearson(both, label),
            both_spearman=None if both is None else spearman(both, label),
            seconds=fit.seconds,
            promoters_per_second=fit.promoters_per_second,
        )

    @torch.inference_mode()
    def predict_other_strand(self, split: str) -> Values:
        """Predict a split of finetune in its order, read from the other strand: standardized, float32 (rows,)."""
        self.network.eval()
        steps = self._stream(split, EVALUATION_BATCH, training=False).epoch(0)
        batches = (batch for step in steps for batch in step.micro_batches)
        turned = ((reverse_complement(b.tokens, b.lengths, self.index.k), b.lengths) for b in batches)
        return np.concatenate([self._forward(*each).cpu().numpy() for each in turned])

    @torch.inference_mode()
    def predict_promoters(self, promoters: list[str], assay: Assay) -> Values:
        """Predict promoters, adapters included, on the scale of the labels: float32 (rows,).

        Raises UserError for an invalid promoter, and for flanks that are not those of the shards.
        """
        if (assay.left_flank, assay.right_flank) != (self.index.left_flank, self.index.right_flank):
            raise UserError(f"{self.shards}: other flanks than those of the configuration; fix: --config of the shards")
        rows = encode_promoters(repaired(promoters, assay), assay, self.index.k)
        self.network.eval()
        parts, all_lengths = [], np.diff(rows.offsets)
        for first in range(0, len(rows), EVALUATION_BATCH):
            part = np.arange(first, min(first + EVALUATION_BATCH, len(rows)))
            lengths = all_lengths[part]
            parts.append(self._forward(pad_tokens(rows, part, lengths), lengths).cpu().numpy())
        return self._from_standard(np.concatenate(parts))


def write_predictions(training: Baseline, config: Path, file: Path, output: Path) -> None:
    """Predict the first column of a file without header line, and write promoters and predictions as TSV."""
    promoters = [line.split("\t")[0] for line in file.read_text().splitlines()]
    predictions = training.predict_promoters(promoters, load_config(config).assay)
    lines = (f"{promoter}\t{value:.7g}\n" for promoter, value in zip(promoters, predictions, strict=True))
    output.write_text("".join(lines))


def main() -> None:
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("shards", type=Path, help="folder of one k, such as shards/k3")
    cli.add_argument("--size", choices=SIZES, default="full", help="default: full")
    cli.add_argument("--epochs", type=int, default=8, help="default: 8")
    cli.add_argument("--batch", type=int, default=128, help="promoters per step; default: 128")
    cli.add_argument(
        "--learning-rate", type=float, default=LEARNING_RATE, help="highest one of the cycle; default: 0.01"
    )
    cli.add_argument(
        "--random-n", type=float, default=0.0, help="probability that training reads a base as N; default: 0"
    )
    cli.add_argument("--reverse-complement", action="store_true", help="train on both strands")
    cli.add_argument("--optimizer", choices=get_args(Optimizer), default="adam", help="default: adam")
    cli.add_argument("--weight-decay", type=float, default=WEIGHT_DECAY, help="default: 0.1")
    cli.add_argument("--seed", type=int, default=0, help="default: 0")
    cli.add_argument("--json", action="store_true", help="print result and settings as one line of JSON")
    cli.add_argument("--predict", type=Path, help="file of promoters to predict; default: none")
    cli.add_argument("--config", type=Path, default=ROOT / "config.yaml", help="its assay; default: config.yaml")
    cli.add_argument("-o", "--output", type=Path, default=Path("predictions.tsv"), help="default: predictions.tsv")
    options = vars(cli.parse_args())
    shards, as_json, file, config, output = (options.pop(n) for n in ("shards", "json", "predict", "config", "output"))
    try:
        training = Baseline(shards, CnnSettings(**options))
        result = training.train(lambda line: print(line, file=sys.stderr, flush=True))
        if file:
            write_predictions(training, config, file, output)
    except UserError as error:
        cli.exit(1, f"error: {error}\n")
    if as_json:
        print(json.dumps({"asked": options, **asdict(result)}))
        return
    print(
        f"CNN of {result.parameters:,} parameters, epoch {result.best_epoch} of {result.epochs} (selected on valid): "
        f"{result.train_rows:,} train, {result.test_rows:,} test, {result.promoters_per_second:,.0f} promoters/s"
    )
    print(f"Pearson {result.pearson:.4f}, Spearman {result.spearman:.4f}")


if __name__ == "__main__":
    main()
