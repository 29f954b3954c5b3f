"""Ridge regression on k-mer counts."""

from collections import Counter

import numpy as np
import pytest

from model.baselines.ridge import ALPHAS, LONGEST, count_kmers, fit_ridge, select_ridge


def draw(rows, seed=0):
    rng = np.random.default_rng(seed)
    inserts = ["".join(rng.choice(list("ACGT"), rng.integers(3, 40))) for _ in range(rows)]
    labels = np.array([insert.count("GA") - 0.5 * insert.count("T") for insert in inserts]) + rng.normal(0, 0.3, rows)
    return inserts, labels


def test_counts_equal_counting_by_hand():
    inserts = ["ACGTACGTAA", "AANAA", "A", "", "NNNNNNN", "TTTTTTTT"]
    counts = count_kmers(inserts)
    assert counts.shape == (len(inserts), sum(4**k for k in range(1, LONGEST + 1)))
    for insert, row in zip(inserts, counts.toarray(), strict=True):
        first = 0
        for k in range(1, LONGEST + 1):
            words = Counter(insert[i : i + k] for i in range(len(insert) - k + 1))
            expected = {word: n for word, n in words.items() if "N" not in word}
            places = {
                sum("ACGT".index(base) * 4 ** (k - 1 - i) for i, base in enumerate(word)): n
                for word, n in expected.items()
            }
            block = row[first : first + 4**k]
            assert dict(zip(np.flatnonzero(block), block[block > 0], strict=True)) == places
            first += 4**k


@pytest.mark.parametrize("columns", [84, 5460])
def test_weights_solve_the_normal_equations(columns):
    """With fewer rows than columns, they are the solution of the dual problem."""
    inserts, labels = draw(300)
    counts = count_kmers(inserts)[:, :columns].tocsr()
    model = fit_ridge(counts, labels, alpha=10.0)
    x = counts.toarray().astype(np.float64)
    centred = x - x.mean(0)
    dual = np.linalg.solve(centred @ centred.T + 10.0 * np.eye(300), labels - labels.mean())
    expected = centred @ (centred.T @ dual) + labels.mean()
    assert model.predict(counts) == pytest.approx(expected, abs=2e-3)


def test_the_best_strength_on_valid_is_selected():
    inserts, labels = draw(400)
    train, valid = ((count_kmers(inserts[part]), labels[part]) for part in (slice(0, 300), slice(300, 400)))
    steps = []
    alpha, model = select_ridge(train, valid, steps.append)
    scores = {each: np.corrcoef(fit_ridge(*train, each).predict(valid[0]), valid[1])[0, 1] for each in ALPHAS}
    assert alpha == max(scores, key=scores.get)
    assert np.corrcoef(model.predict(valid[0]), valid[1])[0, 1] == pytest.approx(scores[alpha])
    assert len(steps) == len(ALPHAS)
