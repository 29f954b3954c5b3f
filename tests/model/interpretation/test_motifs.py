"""MEME files, and the hits of their motifs: p-values against enumeration, hits against a search by hand."""

from itertools import product

import numpy as np
import pytest

from model.interpretation.motifs.meme_file import Motif, MotifFile, read_motifs
from model.interpretation.motifs.scan import MAX_P_VALUE, PSEUDOCOUNT, STEPS_PER_BIT, MotifScanner
from pipeline.errors import UserError

HEAD = "MEME version 4\n\nALPHABET= ACGT\n\nstrands: + -\n\n"
BACKGROUND = "Background letter frequencies\nA 0.3 C 0.2 G 0.1 T 0.4\n\n"
MATRIX = "letter-probability matrix: alength= 4 w= 3 nsites= 50 E= 1e-5\n"
ROWS = " 0.7 0.1 0.1 0.1\n0.0\t1.0 0.0 0.0\n  0.25 0.25 0.25 0.25\n"


def meme(tmp_path, text):
    path = tmp_path / "motifs.meme"
    path.write_text(text)
    return path


def test_motifs_and_background_are_read(tmp_path):
    log_odds = "log-odds matrix: alength= 4 w= 3\n1 2 3 4\n1 2 3 4\n1 2 3 4\n"
    text = f"{HEAD}{BACKGROUND}MOTIF MA1 GCN4\n{MATRIX}\n{ROWS}URL http://x\n\nMOTIF second\n{log_odds}\n"
    text += f"letter-probability matrix: alength= 4\n{ROWS}\n"
    file = read_motifs(meme(tmp_path, text))
    first, second = file.motifs
    assert (first.title, first.name, first.sites) == ("MA1 GCN4", "GCN4", 50)
    assert (second.title, second.sites) == ("second", 20)
    expected = [[0.7, 0.1, 0.1, 0.1], [0, 1, 0, 0], [0.25] * 4]
    for motif in (first, second):
        np.testing.assert_allclose(motif.probabilities, expected)
    assert file.background.tolist() == pytest.approx([0.3, 0.2, 0.1, 0.4])
    uniform = read_motifs(meme(tmp_path, f"\ufeff{HEAD}MOTIF one\n{MATRIX}{ROWS}"))
    assert uniform.background.tolist() == [0.25] * 4


@pytest.mark.parametrize("sites", ["0", "-5", "nan", "inf", "many"])
def test_impossible_numbers_of_sites_are_ignored(sites, tmp_path):
    (motif,) = read_motifs(meme(tmp_path, f"{HEAD}MOTIF one\n{MATRIX.replace('50', sites)}{ROWS}")).motifs
    assert motif.sites == 20


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (">motif\nACGT\n", "no line 'MEME version'"),
        (HEAD, "no motifs"),
        (HEAD.replace("ACGT", "ACDEFGHIKLMNPQRSTVWY"), "line 3: alphabet 'ACDEF"),
        (f"{HEAD}{MATRIX}{ROWS}", "line 7: a matrix before the first MOTIF line"),
        (f"{HEAD}MOTIF\n", "line 7: a motif without a name"),
        (f"{HEAD}MOTIF a\n{MATRIX}{ROWS.splitlines()[0]}\n\n", "motif a: expected 3 rows of probabilities, got 1"),
        (f"{HEAD}MOTIF a\n{MATRIX}0.5 0.5 0.5 0.5\n", "line 9: expected four probabilities with a sum of 1"),
        (f"{HEAD}MOTIF a\n{MATRIX}0.5 0.5 nan 0\n", "line 9: expected four probabilities"),
        (f"{HEAD}MOTIF a\n{MATRIX}0.5 0.5\n", "line 9: expected four probabilities"),
        (f"{HEAD}MOTIF a\n{MATRIX.replace('alength= 4', 'alength= 20')}", "20 letters per position"),
        (HEAD + "Background letter frequencies\nC 0.25 A 0.25 G 0.25 T 0.25\n", "expected the frequencies of A, C, G"),
    ],
)
def test_invalid_files_are_refused_with_the_line(text, problem, tmp_path):
    with pytest.raises(UserError, match=problem):
        read_motifs(meme(tmp_path, text))


def test_unreadable_files_are_refused(tmp_path):
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for name, problem in (("missing", "No such file"), ("binary", "not a text file")):
        with pytest.raises(UserError, match=problem):
            read_motifs(tmp_path / name)


def random_motif(width, seed, sharpness):
    rng = np.random.default_rng(seed)
    return Motif(f"m{seed}", f"m{seed}", rng.dirichlet([sharpness] * 4, width), 30)


def rounded_scores(motif, background):
    odds = (motif.probabilities * motif.sites + PSEUDOCOUNT * background) / (motif.sites + PSEUDOCOUNT) / background
    return np.rint(STEPS_PER_BIT * np.log2(odds))


def test_p_values_equal_those_of_all_words():
    background = np.array([0.31, 0.19, 0.19, 0.31])
    motif = random_motif(7, seed=1, sharpness=0.2)
    scores = rounded_scores(motif, background)
    words = np.array(list(product(range(4), repeat=7)))
    sums, shares = scores[np.arange(7), words].sum(1), background[words].prod(1)
    scanner = MotifScanner(MotifFile([motif], np.array([0.4, 0.1, 0.28, 0.22])))  # its mean over both strands
    best = words[np.argsort(-sums)[:40]]
    found = 0
    for word in best:
        p_value = shares[sums >= scores[np.arange(7), word].sum()].sum()
        hits = [hit for hit in scanner.scan("".join("ACGT"[base] for base in word), 0, 7) if hit.strand == "+"]
        assert bool(hits) == (p_value <= MAX_P_VALUE)
        for hit in hits:
            assert hit.p_value == pytest.approx(p_value, rel=1e-9)
            assert hit.score == pytest.approx(scores[np.arange(7), word].sum() / STEPS_PER_BIT)
        found += len(hits)
    assert 0 < found < 40


def test_hits_of_both_strands_are_those_of_a_search_by_hand():
    background = np.full(4, 0.25)
    motifs = [random_motif(8, seed, 0.3) for seed in range(8)]
    sequence = "".join(np.random.default_rng(5).choice(list("ACGTN"), 4000, p=[0.245] * 4 + [0.02]))
    scanner = MotifScanner(MotifFile(motifs, background))
    hits = scanner.scan(sequence, 100, 3800)
    assert [hit.p_value for hit in hits] == sorted(hit.p_value for hit in hits)
    turned = str.maketrans("ACGTN", "TGCAN")
    expected = set()
    for motif in motifs:
        scores = rounded_scores(motif, background)
        lowest = min((hit.score for hit in hits if hit.motif is motif), default=np.inf)
        for at in range(100 - 7, 3900):
            word = sequence[at : at + 8]
            for strand, bases in (("+", word), ("-", word.translate(turned)[::-1])):
                if "N" not in bases and sum(scores[i, "ACGT".index(b)] for i, b in enumerate(bases)) / 100 >= lowest:
                    expected.add((motif.name, at - 99, at - 92, strand))
    assert {(hit.motif.name, hit.start, hit.end, hit.strand) for hit in hits} == expected
    assert {hit.strand for hit in hits} == {"+", "-"}
    assert len(hits) < 4 * scanner.expected_by_chance(3800, (100, 100)) + 10


def test_sites_may_begin_in_an_adapter_and_short_motifs_have_none():
    probabilities = np.eye(4)[["ACGT".index(base) for base in "TGACTCAGG"]]
    motif = Motif("GCN4", "GCN4", probabilities)
    short = Motif("short", "short", probabilities[:5])
    scanner = MotifScanner(MotifFile([motif, short], np.full(4, 0.25)))
    (hit,) = scanner.scan("AAATGACTCAGGAAA", 5, 8)
    assert (hit.start, hit.end, hit.strand) == (-1, 7, "+")
    assert scanner.scan("TGACTCAGGAAAAA", 9, 5) == []  # it ends before the insert
    assert scanner.without_hits == [short]
    share = 2 * 4**-9  # of both strands: only the consensus has this p-value
    for insert, adapters, sites in ((8, (5, 2), 7), (8, (50, 50), 16), (8, (0, 0), 0), (20, (0, 0), 12)):
        assert scanner.expected_by_chance(insert, adapters) == pytest.approx(share * sites)
    with pytest.raises(UserError, match="frequency 0"):
        MotifScanner(MotifFile([motif], np.array([0.5, 0, 0, 0.5])))
