"""Ridge regression on counts of all 1- to 6-mers of the insert.

The counts are sparse, so the normal equations are solved by conjugate gradients on products with the counts, as in
scikit-learn's solver sparse_cg: (X'X + alpha I) w = X'y for centred X, which is never made dense.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.sparse.linalg import LinearOperator, cg

from model.scoring.metrics import pearson
from pipeline.dataset.database import dataset_info, open_dataset
from pipeline.dataset.rows.names import quoted

LONGEST = 6
"""Largest k, in bases."""
ALPHAS = (1.0, 10.0, 100.0, 1000.0)
"""Regularization strengths, of which the best on the validation split is used."""
TOLERANCE = 1e-4
"""Relative residual at which the solver stops."""
ROWS_TOGETHER = 20_000
"""Inserts whose k-mers are counted at a time: their positions take far more memory than the counts."""

Labels = npt.NDArray[np.float64]
Counts = sparse.csr_matrix


@dataclass(frozen=True)
class RidgeModel:
    """Linear model of k-mer counts: weights float32 (5,460,)."""

    weights: npt.NDArray[np.float32]
    intercept: float

    def predict(self, counts: Counts) -> Labels:
        """Predict labels (rows,)."""
        return np.asarray(counts @ self.weights, np.float64) + self.intercept


@dataclass(frozen=True)
class SplitCounts:
    """One split of finetune: ids (rows,), counts (rows, 5,460), and labels (rows, labels), NaN for a missing label."""

    id: npt.NDArray[np.int64]
    counts: Counts
    labels: Labels


def count_kmers(inserts: Sequence[str]) -> Counts:
    """Count all 1- to 6-mers over ACGT in each insert: float32 (rows, 5,460). k-mers with an N are not counted."""
    parts = [inserts[start : start + ROWS_TOGETHER] for start in range(0, len(inserts), ROWS_TOGETHER)]
    counts: Counts = sparse.vstack([_count_part(part) for part in parts or [[]]], format="csr")
    return counts


def _count_part(inserts: Sequence[str]) -> Counts:
    code = np.full(256, 255, np.uint8)
    code[np.frombuffer(b"ACGT", np.uint8)] = np.arange(4)
    blocks = []
    for k in range(1, LONGEST + 1):
        rows, columns = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
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


def read_split(dataset: Path, split: str) -> SplitCounts:
    """Read one split of finetune, which may be empty. Raises UserError if the dataset cannot be opened."""
    with open_dataset(dataset) as connection:
        names = dataset_info(connection).several_labels or ["expression"]
        query = (
            f"select id, insert_of(sequence), {', '.join(map(quoted, names))} from finetune where split = ? "
            "order by position"
        )
        rows = connection.sql(query, params=[split]).to_arrow_table()
    labels = [rows.column(2 + place).to_numpy().astype(np.float64) for place in range(len(names))]
    counts = count_kmers(rows.column(1).to_pylist())  # by number, as a label may have any name
    return SplitCounts(rows.column(0).to_numpy().astype(np.int64), counts, np.stack(labels, 1))


def fit_ridge(counts: Counts, labels: Labels, alpha: float) -> RidgeModel:
    """Fit a model to counts float32 (rows, 5,460) and labels (rows,). The intercept is not penalized.

    Without rows, all weights are 0.
    """
    rows, columns = counts.shape
    if not rows:
        return RidgeModel(np.zeros(columns, np.float32), 0.0)
    mean = float(labels.mean())
    y = (labels - mean).astype(np.float32)
    y -= np.average(y)  # what the rounding to float32 left
    # In float32, the mean of millions of counts would lose digits.
    centre = np.asarray(counts.sum(0, dtype=np.float64) / rows, np.float32).ravel()
    ones = np.ones(rows, np.float32)

    def times(vector: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return np.asarray(counts @ vector - vector @ centre)

    def transposed_times(vector: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return np.asarray(counts.T @ vector - centre * (vector @ ones))

    penalty = np.float32(alpha)
    if columns > rows:  # the same weights from fewer equations: w = X' (XX' + alpha I)^-1 y
        gram = LinearOperator((rows, rows), matvec=lambda v: times(transposed_times(v)) + penalty * v, dtype=np.float32)
        weights = transposed_times(cg(gram, y, rtol=TOLERANCE)[0])
    else:
        normal = LinearOperator(
            (columns, columns), matvec=lambda v: transposed_times(times(v)) + penalty * v, dtype=np.float32
        )
        weights = cg(normal, transposed_times(y), rtol=TOLERANCE)[0]
    weights = np.asarray(weights, np.float32)
    return RidgeModel(weights, mean - float(weights @ centre))


def select_ridge(
    train: tuple[Counts, Labels], valid: tuple[Counts, Labels], on_step: Callable[[str], None] = lambda _: None
) -> tuple[float, RidgeModel]:
    """Fit all ALPHAS, and return the one with the highest validation Pearson, with its model.

    on_step: called with the name of each fit before it begins.
    """
    fits = {}
    for alpha in ALPHAS:
        on_step(f"alpha {alpha:g}")
        fits[alpha] = fit_ridge(*train, alpha)
    return max(fits.items(), key=lambda fit: pearson(fit[1].predict(valid[0]), valid[1]))
