"""Ridge regression on counts of all 1- to 6-mers of the insert: a baseline for trained models.

python -m bench.quality.ridge dataset.duckdb            train on finetune/train, score finetune/test
python -m bench.quality.ridge dataset.duckdb --json     print the result as JSON
"""

import argparse
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.stats import pearsonr, spearmanr
from sklearn.linear_model import Ridge

from pipeline.dataset.database import open_dataset

LONGEST = 6
"""Largest k, in bases."""
ALPHAS = (1.0, 10.0, 100.0, 1000.0)
"""Regularization strengths, of which the best on the validation split is used."""


def kmer_counts(inserts: list[str]) -> sparse.csr_matrix:
    """Count all 1- to 6-mers over ACGT in each insert: float32 (rows, 5,460). k-mers with an N are not counted."""
    code = np.full(256, 255, np.uint8)
    code[np.frombuffer(b"ACGT", np.uint8)] = np.arange(4)
    blocks = []
    for k in range(1, LONGEST + 1):
        rows, columns = [], []
        for row, insert in enumerate(inserts):
            bases = code[np.frombuffer(insert.encode(), np.uint8)].astype(np.int64)
            if len(bases) < k:
                continue
            windows = np.lib.stride_tricks.sliding_window_view(bases, k)
            windows = windows[(windows < 4).all(1)]
            columns.append(windows @ 4 ** np.arange(k - 1, -1, -1))
            rows.append(np.full(len(windows), row))
        places = (np.concatenate(rows), np.concatenate(columns))
        ones = np.ones(len(places[0]), np.float32)
        blocks.append(sparse.coo_matrix((ones, places), (len(inserts), 4**k)))
    return sparse.hstack(blocks).tocsr()


def read_split(dataset: Path, name: str) -> tuple[sparse.csr_matrix, npt.NDArray[np.float64]]:
    """Read k-mer counts (rows, 5,460) and labels (rows,) of one split of finetune."""
    with open_dataset(dataset) as connection:
        rows = connection.execute(
            "select insert_of(sequence), expression from finetune where split = ? order by position", [name]
        ).fetchall()
    inserts, labels = zip(*rows, strict=True)
    return kmer_counts(list(inserts)), np.array(labels)


def main() -> None:
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("dataset", type=Path, help="DuckDB file of promoter-bert build")
    cli.add_argument("--json", action="store_true", help="print the result as JSON")
    args = cli.parse_args()
    dataset = args.dataset
    (train, y), (valid, y_valid), (test, y_test) = (read_split(dataset, name) for name in ("train", "valid", "test"))
    mean = y.mean()
    fits = {alpha: Ridge(alpha=alpha, solver="sparse_cg", tol=1e-4).fit(train, y - mean) for alpha in ALPHAS}
    alpha, best = max(fits.items(), key=lambda fit: pearsonr(fit[1].predict(valid), y_valid).statistic)
    prediction = best.predict(test) + mean
    r, rho = pearsonr(prediction, y_test).statistic, spearmanr(prediction, y_test).statistic
    if args.json:
        print(json.dumps({"pearson": r, "spearman": rho, "alpha": alpha}))
        return
    print(
        f"ridge on 1- to {LONGEST}-mers, alpha {alpha:g} (selected on valid): "
        f"{train.shape[0]:,} train, {len(y_test):,} test"
    )
    print(f"Pearson {r:.4f}, Spearman {rho:.4f}")


if __name__ == "__main__":
    main()
