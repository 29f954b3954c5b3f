"""DREAM Challenge score: against values computed by hand, under transformations, and from the published files."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from model.cli.analysis import describe_score
from model.scoring.dream import PAIRED, WEIGHTS, dream_score, final_subsets, weighted_mean
from model.scoring.dream_files import read_labels, read_predictions, read_subsets, score_files
from pipeline.errors import UserError
from tests.model.scoring.toy_challenge import ROWS, make_challenge, write_csv


@pytest.fixture
def toy(tmp_path):
    return make_challenge(tmp_path)


def scored(toy, values, order=None, public=True):
    folder = toy.folder
    return score_files(
        toy.predictions(values, order), folder / "labels.tsv", folder / "subsets", folder / "public" if public else None
    )


def numbers(result):
    parts = {name: (part.pearson, part.spearman) for name, part in result.subsets.items()}
    return [result.pearson_score, result.spearman_score, *np.ravel(list(parts.values()))]


def test_formula_by_hand():
    """Four rows per subset with r and rho of 0.8, 1 or -1; for pairs only the differences correlate so."""
    four = np.arange(4)
    order = {0.8: [1, 3, 2, 4], 1.0: [1, 2, 3, 4], -1.0: [4, 3, 2, 1]}
    expected = {
        "all": 0.8, "high": -1.0, "low": 1.0, "yeast": 0.8, "random": 0.8, "challenging": -1.0,
        "SNVs": 0.8, "motif_perturbation": 1.0, "motif_tiling": -1.0,
    }  # fmt: skip
    label, prediction, subsets = [], [], {}
    for name, r in expected.items():
        first = len(label)
        if name in PAIRED:
            label += [101, 202, 303, 404, 100, 200, 300, 400]
            prediction += [order[r][i] + 10 * (3 - i) for i in four] + [10 * (3 - i) for i in four]
            subsets[name] = np.stack([first + four, first + 4 + four], axis=1)
        else:
            label += [1, 2, 3, 4]
            prediction += order[r]
            subsets[name] = first + four
    score = dream_score(np.array(prediction, float), np.array(label, float), subsets)
    assert {name: part.pearson for name, part in score.subsets.items()} == pytest.approx(expected)
    assert {name: part.spearman for name, part in score.subsets.items()} == pytest.approx(expected)
    #        all          high  low   yeast         random        chall. SNVs           pert.  tiling
    squares = 0.64 + 0.3 + 0.3 + 0.3 * 0.64 + 0.3 * 0.64 + 0.5 + 1.25 * 0.64 + 0.3 + 0.4
    plain = 0.8 - 0.3 + 0.3 + 0.3 * 0.8 + 0.3 * 0.8 - 0.5 + 1.25 * 0.8 + 0.3 - 0.4
    assert score.pearson_score == pytest.approx(squares / 4.65)
    assert score.spearman_score == pytest.approx(plain / 4.65)


def test_subset_weights_are_those_of_the_challenge():
    assert sum(WEIGHTS.values()) == pytest.approx(4.65)
    assert weighted_mean(dict.fromkeys(WEIGHTS, 0.7)) == pytest.approx(0.7)
    assert weighted_mean({name: float(name in PAIRED) for name in WEIGHTS}) == pytest.approx(1.95 / 4.65)


def test_score_equals_plain_loops_over_the_files(toy):
    """A pair is kept if only one of its rows was public."""
    values = toy.labels + np.random.default_rng(1).normal(size=ROWS)
    score = scored(toy, values)
    public_rows = {int(row) for rows in toy.public.values() for row in np.ravel(rows)}
    public_pairs = {pair for name in PAIRED for pair in toy.public[name]}
    assert public_pairs
    parts = {"all": [row for row in range(ROWS) if row not in public_rows]}
    for name, rows in toy.subsets.items():
        excluded = public_pairs if name in PAIRED else public_rows
        parts[name] = sorted({row for row in rows if row not in excluded})
    assert any(set(pair) & public_rows for pair in parts["SNVs"])
    for name, rows in parts.items():
        if name in PAIRED:
            y, p = ([side[a] - side[b] for a, b in rows] for side in (toy.labels, values))
        else:
            y, p = (side[rows] for side in (toy.labels, values))
        part = score.subsets[name]
        assert part.rows == len(rows)
        assert part.pearson == pytest.approx(stats.pearsonr(y, p).statistic)
        assert part.spearman == pytest.approx(stats.spearmanr(y, p).statistic)
        assert part.pearson_interval[0] <= part.pearson <= part.pearson_interval[1]
    assert score.pearson_score == pytest.approx(
        sum(WEIGHTS[name] * part.pearson**2 for name, part in score.subsets.items()) / 4.65
    )


def test_score_ignores_order_scale_and_shift(toy):
    draws = np.random.default_rng(2)
    values = toy.labels + draws.normal(size=ROWS)
    expected = numbers(scored(toy, values))
    assert numbers(scored(toy, values, order=draws.permutation(ROWS))) == expected
    assert numbers(scored(toy, 8.5 * values)) == pytest.approx(expected)
    assert numbers(scored(toy, values - 100)) == pytest.approx(expected)
    public_rows = {int(row) for rows in toy.public.values() for row in np.ravel(rows)}
    other_side = scored(toy, -values)
    assert other_side.pearson_score == pytest.approx(expected[0])
    assert other_side.spearman_score == pytest.approx(-expected[1])
    assert 0 < len(public_rows) < ROWS
    assert numbers(scored(toy, values, public=False)) != pytest.approx(expected)
    assert numbers(scored(toy, np.zeros(ROWS))) == [0] * len(expected)  # a constant prediction scores 0
    assert numbers(scored(toy, toy.labels))[:2] == pytest.approx([1, 1])


def test_public_rows_do_not_change_the_final_score(toy):
    values = toy.labels + np.random.default_rng(3).normal(size=ROWS)
    spoiled = values.copy()
    spoiled[[int(row) for rows in toy.public.values() for row in np.ravel(rows)]] = 1e6
    before, after = scored(toy, values), scored(toy, spoiled)
    for name in WEIGHTS:
        same = before.subsets[name] == after.subsets[name]
        assert same == (name not in PAIRED), name


def test_pairs_are_excluded_by_pair():
    subsets = {"all": np.arange(6), "SNVs": np.array([[0, 1], [1, 0], [0, 2], [3, 4]])}
    public = {"high": np.array([5]), "SNVs": np.array([[0, 1]]), "motif_tiling": np.array([[3, 4]])}
    final = final_subsets(subsets, public)
    assert final["all"].tolist() == [2]
    assert final["SNVs"].tolist() == [[1, 0], [0, 2]]


def test_the_public_leaderboard_by_row_number(toy):
    """Labels by row number; predictions as the leaderboard's JSON or by sequence give the same score."""
    folder = toy.folder
    values = toy.labels + np.random.default_rng(4).normal(size=ROWS)
    public_rows = {int(row) for rows in toy.public.values() for row in np.ravel(rows)}
    submission = folder / "submission.json"
    submission.write_text(json.dumps({str(row): values[row] for row in public_rows}))
    score = score_files(submission, folder / "ground.json", folder / "public")
    assert score.subsets["all"].rows == len(public_rows)
    assert score.subsets["SNVs"].rows == len(toy.public["SNVs"])
    test = folder / "test.txt"
    assert score_files(toy.predictions(values), folder / "ground.json", folder / "public", None, test) == score
    with pytest.raises(UserError, match=r"--test test_sequences.txt"):
        score_files(toy.predictions(values), folder / "ground.json", folder / "public")
    with pytest.raises(UserError, match=r"subset high: \d+ of its 25 rows have no label"):
        score_files(submission, folder / "ground.json", folder / "subsets", None, test)


def test_missing_subset_gives_no_total_score(toy):
    (toy.folder / "subsets" / "all_SNVs_seqs.csv").unlink()
    score = scored(toy, toy.labels)
    assert score.missing == ["SNVs"]
    assert score.pearson_score is score.spearman_score is None
    assert len(score.subsets) == 8


def lines_of(toy):
    return [f"{sequence}\t{value!r}\n" for sequence, value in zip(toy.sequences, toy.labels.tolist(), strict=True)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: [*lines[:7], lines[7].split("\t")[0] + "\tnan\n", *lines[8:]], "line 8: .*finite .*got nan"),
        (lambda lines: [lines[0].split("\t")[0] + "\tinf\n", *lines[1:]], "line 1: expected a finite prediction"),
        (
            lambda lines: lines[:-2],
            "no prediction for 2 rows of .*labels.tsv, first row 58, [ACGT]{20}; fix: ",
        ),
        (lambda lines: [*lines, lines[4]], "line 61: duplicate of line 5, [ACGT]{20}"),
        (lambda lines: ["ACGT\t1\n", *lines], r"line 1: .* 'ACGT' \(1 such lines\)"),
        (lambda lines: [*lines[:2], "\n", *lines[2:]], "line 3: expected a sequence, a tab and a number, got ''"),
        (lambda lines: ["sequence\tprediction\n", *lines], "line 1: expected a sequence, a tab and a number"),
        (lambda lines: [line.replace("\n", "\t2\n") for line in lines], "line 1: expected one prediction, got several"),
        (lambda lines: [line.replace("\t", ",") for line in lines], "line 1: expected a sequence, a tab and a number"),
    ],
)
def test_invalid_predictions_raise(toy, change, message):
    path = toy.folder / "wrong.tsv"
    path.write_text("".join(change(lines_of(toy))))
    with pytest.raises(UserError, match=message):
        read_predictions(path, read_labels(toy.folder / "labels.tsv"))


def test_negative_pearson_is_noted(toy):
    score = scored(toy, toy.labels)
    assert "negative" not in describe_score(score)[-1]
    low = replace(score.subsets["low"], pearson=-0.1)
    lines = describe_score(replace(score, subsets={**score.subsets, "low": low}))
    assert lines[-1].startswith("note: Pearson is negative for low;")


@pytest.mark.parametrize("missing", ["predictions", "labels", "subsets", "public", "test_rows"])
def test_missing_file_raises_first(toy, missing):
    paths = {
        "predictions": toy.folder / "labels.tsv",
        "labels": toy.folder / "subsets",
    }  # no labels, but the path exists
    paths |= {"subsets": toy.folder, "public": toy.folder, "test_rows": toy.folder, missing: toy.folder / "nope.json"}
    kind = "folder" if missing in ("subsets", "public") else "file"
    with pytest.raises(UserError, match=f"nope.json: no such {kind}$"):
        score_files(**paths)


def test_windows_line_ends(toy):
    path = toy.folder / "predictions.tsv"
    path.write_bytes("".join(lines_of(toy)).replace("\n", "\r\n").encode())
    assert read_predictions(path, read_labels(toy.folder / "labels.tsv")).tolist() == toy.labels.tolist()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"3": 1.0, "3": 2.0}', "duplicate row 3"),
        ('{"3": 1.0, "03": 2.0}', "duplicate row 03"),
        ('{"3": NaN}', "row 3: expected a finite number, got nan"),
        ('{"3": "1"}', "row 3: expected a finite number, got '1'"),
        ('{"3": true}', "row 3: expected a finite number, got True"),
        ('{"first": 1}', "expected row numbers as keys, got 'first'"),
        ('{"60": 1}', "expected rows 0 to 59 .*, got row 60"),
        ('{"3": 1%s}' % ("0" * 400), "row 3: expected a finite number, got 10000"),
        ('{"%s": 1}' % ("9" * 25), "expected row numbers as keys, got '99999"),
        ('{"%s": 1}' % ("9" * 5000), "expected row numbers as keys, got '99999"),
        ("[" * 100_000, "not JSON"),
        ("{}", "got an empty object"),
        ("[1]", "expected a JSON object"),
        ('{"3": 1', "not JSON"),
    ],
)
def test_invalid_predictions_by_row_number_raise(toy, text, message):
    path = toy.folder / "wrong.json"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_predictions(path, read_labels(toy.folder / "labels.tsv"))


def test_subset_files_of_another_test_set_raise(toy):
    labels = read_labels(toy.folder / "labels.tsv")
    subsets = toy.folder / "subsets"
    with pytest.raises(UserError, match="no subset files; expected"):
        read_subsets(toy.folder, labels)
    write_csv(subsets / "high_exp_seqs.csv", [5, 6], ["A" * 20] * ROWS)
    with pytest.raises(UserError, match=r"high_exp_seqs.csv, line 2: row 5 is A{20} here, but [ACGT]{20} in"):
        read_subsets(subsets, labels)
    write_csv(subsets / "high_exp_seqs.csv", [5, 77], toy.sequences * 2)
    with pytest.raises(UserError, match=r"subset high names row 77, but .* has 60 rows"):
        read_subsets(subsets, labels)
    (subsets / "high_exp_seqs.csv").write_text("tag,exp\na,1\n")
    with pytest.raises(UserError, match="expected columns pos, sequence"):
        read_subsets(subsets, labels)
    (subsets / "high_exp_seqs.csv").write_text("pos,sequence\nfive,A\n")
    with pytest.raises(UserError, match="line 2: expected a row number, got 'five'"):
        read_subsets(subsets, labels)
    (toy.folder / "public" / "SNVs_exp_indices.json").write_text('{"5": 1}')
    with pytest.raises(UserError, match="expected two row numbers with a comma between as keys, got '5'"):
        read_subsets(toy.folder / "public", labels)


@pytest.mark.parametrize("name", ["a[1].tsv", "a*.tsv", "a?.tsv", "delim\x01.tsv", "line=3.tsv"])
def test_file_that_is_named_is_read(toy, name):
    """Another file matches the name as a glob pattern."""
    (toy.folder / "a1.tsv").write_text("".join(f"{sequence}\t7\n" for sequence in toy.sequences))
    for folder in (toy.folder, toy.folder / "sub[1]", toy.folder / "sub1"):
        folder.mkdir(exist_ok=True)
    for path in (toy.folder / name, toy.folder / "sub[1]" / name):
        path.write_text("".join(lines_of(toy)))
        labels = read_labels(path)
        assert labels.values.tolist() == toy.labels.tolist()
        assert read_predictions(path, labels).tolist() == toy.labels.tolist()


def test_subset_file_that_is_named_is_read(toy):
    labels = read_labels(toy.folder / "labels.tsv")
    for folder, rows in (("ids[1]", [5, 6]), ("ids1", [7, 8])):
        (toy.folder / folder).mkdir()
        write_csv(toy.folder / folder / "high_exp_seqs.csv", rows, toy.sequences)
    assert read_subsets(toy.folder / "ids[1]", labels)["high"].tolist() == [5, 6]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"%s\t3\x01foo\n", r"line 1: expected a sequence, a tab and a number, got '[ACGT]{20}\\t3\\x01foo'"),
        (b"%s\t3\0\n", "NUL byte"),
        (b"%s\t\xff\n", "labels.tsv:1: not text in UTF-8"),
        (b"\x1f\x8b%s", "compressed"),
    ],
)
def test_text_that_is_no_label_raises(toy, text, message):
    (toy.folder / "labels.tsv").write_bytes(text % toy.sequences[0].encode())
    with pytest.raises(UserError, match=message):
        read_labels(toy.folder / "labels.tsv")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pos,sequence\n" + "9" * 25 + ",A\n", "line 2: expected a row number, got '999"),
        ("pos,sequence\n" + "9" * 5000 + ",A\n", "line 2: expected a row number, got '999"),
        ("pos,sequence\n-1,A\n", "line 2: expected a row number, got '-1'"),
        ("pos,sequence\n5\n", "line 2: row 5 is  here, but "),
        ("sequence,pos\nA\n", "line 2: expected a row number, got ''"),
        ("pos,sequence\n5," + "A" * 200_000, "cannot be read: field larger"),
        ("", "expected columns pos, sequence"),
    ],
)
def test_invalid_subset_files_raise(toy, text, message):
    (toy.folder / "subsets" / "high_exp_seqs.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        read_subsets(toy.folder / "subsets", read_labels(toy.folder / "labels.tsv"))


def test_published_challenge_files(real_data, tmp_path):
    """Public labels scored against themselves; sizes of the final subsets; only public SNV pairs are available."""
    board, test = real_data / "dream_leaderboard", real_data / "test_sequences.txt"
    ground = board / "ground.json"
    perfect = score_files(ground, ground, board, None, test)
    assert (perfect.pearson_score, perfect.spearman_score) == pytest.approx((1, 1))
    sizes = {name: part.rows for name, part in perfect.subsets.items()}
    assert sizes == {
        "all": 9045, "high": 96, "low": 99, "yeast": 208, "random": 733, "challenging": 195, "SNVs": 4670,
        "motif_perturbation": 328, "motif_tiling": 263,
    }  # fmt: skip
    chance = score_files(board / "sample_submission.json", ground, board, None, test)
    assert chance.pearson_score < 0.02
    assert abs(chance.spearman_score) < 0.05
    public = read_labels(ground, test)
    draws = np.random.default_rng(0)
    labels = np.where(np.isfinite(public.values), public.values, draws.normal(size=len(public.values)))
    path = tmp_path / "labels.tsv"
    path.write_text("".join(f"{s}\t{y!r}\n" for s, y in zip(public.sequences, labels.tolist(), strict=True)))
    final = score_files(path, path, real_data / "dream_subsets", board)
    assert final.missing == ["SNVs"]
    assert {name: part.rows for name, part in final.subsets.items()} == {
        "all": 71103 - 9045, "high": 968 - 96, "low": 997 - 99, "yeast": 578 - 208, "random": 6349 - 733,
        "challenging": 1953 - 195, "motif_perturbation": 3287 - 328, "motif_tiling": 2624 - 263,
    }  # fmt: skip
