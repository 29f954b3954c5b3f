"""Compare predictions of a trained model in fp16 and bf16 with those in float32, with the kernels of a CPU.

    python -m bench.training.half_predictions runs/demo demo/demo.tsv

As on a GPU, weights and activations are half precision except in the output layer. Differences have the unit of the
label.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from bench.measure import markdown
from model.prediction.predictor import Predictor

HEAD = ["", "largest difference", "mean difference", "root mean square", "Pearson with float32"]


def main() -> None:
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("run", type=Path, help="run directory or model folder")
    cli.add_argument("rows", type=Path, help="text file with promoters, adapters included, in its first column")
    cli.add_argument("--promoters", type=int, default=1000, help="default: 1000")
    args = cli.parse_args()
    sequences = [line.partition("\t")[0] for line in args.rows.read_text().splitlines()[: args.promoters]]
    values = {}
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        predictor = Predictor(args.run, device=torch.device("cpu"))
        for name, part in predictor.model.named_children():
            if name != "classifier":
                part.to(dtype)
        values[dtype] = predictor.predict(sequences).astype(float)
    expected = values.pop(torch.float32)
    rows = []
    for dtype, predicted in values.items():
        difference = np.abs(predicted - expected)
        numbers = difference.max(), difference.mean(), np.sqrt((difference**2).mean())
        correlation = np.corrcoef(predicted, expected)[0, 1]
        rows.append([str(dtype).removeprefix("torch."), *(f"{number:.5f}" for number in numbers), f"{correlation:.7f}"])
    print(f"{len(expected)} promoters, standard deviation of the predictions {expected.std():.2f}\n")
    print(markdown(HEAD, rows))


if __name__ == "__main__":
    main()
