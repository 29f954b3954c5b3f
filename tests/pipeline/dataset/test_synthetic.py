import gzip

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline.dataset.synthetic import generate as g
from pipeline.dataset.synthetic.ceiling import ceiling_of
from pipeline.dataset.synthetic.inserts import SITES
from pipeline.errors import UserError


def read(path):
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt") as file:
        return [line.rstrip("\n").split("\t") for line in file]


def test_same_seed_same_file_and_a_shorter_file_is_its_beginning(tmp_path):
    g.generate(tmp_path / "a.tsv", 1000, seed=3)
    g.generate(tmp_path / "b.tsv", 1000, seed=3)
    g.generate(tmp_path / "c.tsv", 1000, seed=4)
    g.generate(tmp_path / "short.tsv", 10, seed=3)
    assert (tmp_path / "a.tsv").read_bytes() == (tmp_path / "b.tsv").read_bytes()
    assert (tmp_path / "a.tsv").read_bytes() != (tmp_path / "c.tsv").read_bytes()
    assert read(tmp_path / "a.tsv")[:10] == read(tmp_path / "short.tsv")


def test_all_kinds_of_file_hold_the_same_rows(tmp_path):
    for name in ("r.tsv", "r.tsv.gz", "r.parquet"):
        g.generate(tmp_path / name, 500, seed=5)
    text = read(tmp_path / "r.tsv")
    assert read(tmp_path / "r.tsv.gz") == text
    table = pq.read_table(tmp_path / "r.parquet").to_pydict()
    assert table["sequence"] == [sequence for sequence, _ in text]
    assert table["expression"] == [float(value) for _, value in text]


def test_rows_look_like_the_challenges(tmp_path):
    g.generate(tmp_path / "rows.tsv", 30_000)
    rows = read(tmp_path / "rows.tsv")
    inserts = [s[len(g.LEFT_ADAPTER) : -len(g.RIGHT_ADAPTER)] for s, _ in rows]
    assert all(s.startswith(g.LEFT_ADAPTER.decode()) and s.endswith(g.RIGHT_ADAPTER.decode()) for s, _ in rows)
    lengths = np.array([len(i) for i in inserts])
    assert abs((lengths == 80).mean() - 0.82) < 0.01
    assert abs((lengths == 79).mean() - 0.128) < 0.01
    assert lengths.min() == 57
    assert lengths.max() == 105
    assert abs(np.mean(["N" in i for i in inserts]) - 0.0039) < 0.0015
    bases = "".join(inserts)
    for base, share in zip("ACGT", (0.226, 0.192, 0.281, 0.301), strict=True):
        assert abs(bases.count(base) / len(bases) - share) < 0.005
    labels = np.array([float(v) for _, v in rows])
    assert abs((labels == labels.round()).mean() - 0.58) < 0.02
    assert labels.min() >= 0
    assert labels.max() <= 17


def test_native_inserts_hold_whole_sites_and_random_ones_do_not():
    def share(kind):
        promoters, *_ = g.generate_block(2000, 1, 0, kind)
        return np.mean([any(site in p for site in SITES) for p in promoters.to_pylist()])

    assert share("native") > 0.6
    assert share("random") < 0.02


def test_a_neighbour_predicts_a_base_of_native_inserts_only():
    """The information that two consecutive 3-mers share, in bits: none in random bases."""

    def information(kind):
        promoters, *_ = g.generate_block(4000, 2, 0, kind)
        counts = np.zeros((64, 64))
        digit = {base: n for n, base in enumerate("ACGT")}
        for promoter in promoters.to_pylist():
            insert = promoter[len(g.LEFT_ADAPTER) : -len(g.RIGHT_ADAPTER)]
            if "N" not in insert:
                ids = [digit[a] * 16 + digit[b] * 4 + digit[c] for a, b, c in zip(*[iter(insert)] * 3, strict=False)]
                np.add.at(counts, (ids[:-1], ids[1:]), 1)
        joint = counts / counts.sum()
        product = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
        return float((joint[joint > 0] * np.log2(joint[joint > 0] / product[joint > 0])).sum())

    assert information("random") < 0.1
    assert information("native") > 0.4


def test_native_labels_spread_and_have_a_usual_ceiling():
    promoters, labels, truth = g.generate_block(5000, 3, 0, "native")
    assert 2.5 < truth.std() < 5
    assert ceiling_of(promoters.to_pylist(), labels.tolist()) == pytest.approx(np.corrcoef(truth, labels)[0, 1], 1e-3)


def expected(logit):
    return g.LOWEST + (g.HIGHEST - g.LOWEST) / (1 + np.exp(-logit))


def test_expression_of_hand_made_inserts():
    promoter = (g.LEFT_ADAPTER + b"%s" + g.RIGHT_ADAPTER).decode()
    plain = "GAGCTACTGAGCTACTGAGC"  # 20 bases without any of the motifs, on either strand
    assert np.count_nonzero(g.motif_table()) < 4096
    sequences = [promoter % i for i in (plain, "TGACTA" + plain[6:], plain[:14] + "TGACTA", "TGACTN" + plain[6:])]
    values = g.true_expression_of(sequences)
    assert values[0] == pytest.approx(expected(g.BASAL))
    gcn4, *_ = g.MOTIFS["Gcn4-like"]
    assert values[1] == pytest.approx(expected(g.BASAL + 0.5 * gcn4))  # half at the upstream end
    assert values[2] == pytest.approx(expected(g.BASAL + 1.5 * gcn4))  # one and a half times at the other
    assert values[3] == pytest.approx(expected(g.BASAL))  # a site that holds an N is no hit


def test_ceiling_is_the_correlation_of_noise_free_and_noisy_labels(tmp_path):
    made = g.generate(tmp_path / "rows.tsv", 3000, seed=8)
    rows = read(tmp_path / "rows.tsv")
    truth = g.true_expression_of([s for s, _ in rows])
    assert made.ceiling == pytest.approx(np.corrcoef(truth, [float(v) for _, v in rows])[0, 1], abs=1e-4)
    assert 0.6 < made.ceiling < 0.95


@pytest.mark.parametrize(("name", "rows"), [("rows.csv", 10), ("rows", 10), ("rows.tsv", 0)])
def test_invalid_requests_are_refused_and_leave_no_file(tmp_path, name, rows):
    with pytest.raises(UserError):
        g.generate(tmp_path / name, rows)
    assert list(tmp_path.iterdir()) == []
