"""Ridge regression on counts of all 1- to 6-mers of the insert: a baseline for a trained model.

python -m bench.quality.ridge dataset.duckdb            trains on finetune's train split, scores its test split
python -m bench.quality.ridge dataset.duckdb --json     for scripts
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
ALPHAS = (1.0, 10.0, 100.0, 1000.0)


def kmer_counts(inserts: list[str]) -> sparse.csr_matrix:
    """Count every 1- to 6-mer over ACGT in each insert: (rows, 5,460). A k-mer with an N does not count."""
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
        where = (np.concatenate(rows), np.concatenate(columns))
        ones = np.ones(len(where[0]), np.float32)
        blocks.append(sparse.coo_matrix((ones, where), (len(inserts), 4**k)))
    return sparse.hstack(blocks).tocsr()


def split(dataset: Path, name: str) -> tuple[sparse.csr_matrix, npt.NDArray[np.float64]]:
    """Read features and labels of one split of finetune."""
    with open_dataset(dataset) as connection:
        rows = connection.execute(
            "select insert_of(sequence), expression from finetune where split = ? order by position", [name]
        ).fetchall()
    inserts, labels = zip(*rows, strict=True)
    return kmer_counts(list(inserts)), np.array(labels)


def main() -> None:
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("dataset", type=Path)
    cli.add_argument("--json", action="store_true", help="print the result as JSON")
    args = cli.parse_args()
    dataset = args.dataset
    (train, y), (valid, y_valid), (test, y_test) = (split(dataset, name) for name in ("train", "valid", "test"))
    mean = y.mean()
    fits = {alpha: Ridge(alpha=alpha, solver="sparse_cg", tol=1e-4).fit(train, y - mean) for alpha in ALPHAS}
    alpha, best = max(fits.items(), key=lambda fit: pearsonr(fit[1].predict(valid), y_valid).statistic)
    prediction = best.predict(test) + mean
    r, rho = pearsonr(prediction, y_test).statistic, spearmanr(prediction, y_test).statistic
    if args.json:
        print(json.dumps({"pearson": r, "spearman": rho, "alpha": alpha}))
        return
    print(
        f"ridge on 1- to {LONGEST}-mers, alpha {alpha:g} (chosen on valid): "
        f"{train.shape[0]:,} train, {len(y_test):,} test"
    )
    print(f"Pearson {r:.4f}, Spearman {rho:.4f}")


if __name__ == "__main__":
    main()
