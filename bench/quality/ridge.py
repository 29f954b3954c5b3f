"""Ridge regression on counts of all 1- to 6-mers of the insert: a baseline for trained models.

python -m bench.quality.ridge dataset.duckdb            train on finetune/train, score finetune/test
python -m bench.quality.ridge dataset.duckdb --json     print the result as JSON

`promoter-bert baseline ridge` fits the same model (model/baselines) and keeps its predictions.
"""

import argparse
import json
from pathlib import Path

from model.baselines.ridge import LONGEST, read_split, select_ridge
from model.scoring.metrics import pearson, spearman


def main() -> None:
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("dataset", type=Path, help="DuckDB file of promoter-bert build")
    cli.add_argument("--json", action="store_true", help="print the result as JSON")
    args = cli.parse_args()
    train, valid, test = (read_split(args.dataset, name) for name in ("train", "valid", "test"))
    alpha, best = select_ridge((train.counts, train.labels[:, 0]), (valid.counts, valid.labels[:, 0]))
    prediction, label = best.predict(test.counts), test.labels[:, 0]
    r, rho = pearson(prediction, label), spearman(prediction, label)
    if args.json:
        print(json.dumps({"pearson": r, "spearman": rho, "alpha": alpha}))
        return
    print(
        f"ridge on 1- to {LONGEST}-mers, alpha {alpha:g} (selected on valid): "
        f"{len(train.id):,} train, {len(label):,} test"
    )
    print(f"Pearson {r:.4f}, Spearman {rho:.4f}")


if __name__ == "__main__":
    main()
