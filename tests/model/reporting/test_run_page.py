"""Page of a run: the numbers of each figure are read back and compared with numbers computed here."""

import html
import itertools
import json
import re
import shlex
from dataclasses import asdict

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from scipy.stats import pearsonr, spearmanr, ttest_1samp

from model.reporting.dream_section import LEADERBOARD
from model.reporting.run_page import write_report
from model.reporting.run_plots import FEW, POINTS, SHADES, Curve, class_limits, without_repeats
from model.runs.metric_log import Tracker
from model.runs.metrics_file import read_metrics
from model.scoring.dream import DreamScore
from model.scoring.scores import CorrelationScores
from model.training.messages import describe_summary
from pipeline.dataset.database import open_dataset
from pipeline.dataset.synthetic.generate import true_expression_of
from pipeline.errors import UserError
from pipeline.reporting.palette import BLUE, GREEN, GREY, ORANGE, PALE_BLUE
from tests.model.reporting.svg_reader import read_figures
from tests.model.run_fixtures import finish, held_out_rows, log, section_text, start, text_of
from tests.pipeline.reporting.test_dataset_page import Reader


@pytest.fixture(scope="module")
def run(finished_run):
    return finished_run


@pytest.fixture(scope="module")
def page(run, tmp_path_factory):
    out = tmp_path_factory.mktemp("page") / "report.html"
    steps = []
    result = write_report(run, out, on_step=steps.append)
    assert steps == ["querying the dataset", "drawing", ""]
    assert (result.page, result.run, result.finished, result.missing) == (str(out), "first", True, [])
    assert result.bytes == out.stat().st_size
    assert [path.name for path in out.parent.iterdir()] == ["report.html"]
    return out.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def figures(page):
    return read_figures(page)


@pytest.fixture(scope="module")
def test_split(made, run):
    """Sequences, labels and predictions, read without the project's SQL."""
    _, sequences, labels = held_out_rows(made, "test")
    rows = pa.parquet.read_table(run / "predictions.parquet").to_pylist()
    return sequences, labels, np.array([row["prediction"] for row in rows if row["split"] == "test"])


def shows(axes, colour, points, like=None):
    """Return whether the figure has a line through these points."""
    lines = axes.lines(colour, like)
    return any(line.shape == points.shape and np.allclose(line, points, rtol=1e-4, atol=1e-4) for line in lines)


def test_data_of_a_run_without_pretraining(made, page, tmp_path):
    assert "used for pretraining" in section_text(page, "Data")
    folder = start(made, tmp_path, "run.name=scratch", "finetune.start=scratch")
    write_report(folder, tmp_path / "scratch.html")
    text = section_text((tmp_path / "scratch.html").read_text(), "Data")
    assert "it has no pretraining" in text
    assert not re.search("threshold|used for pretraining|Pretraining", text)


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_curves_show_the_metric_log(run, figures, stage):
    lines = [line for line in read_metrics(run / "metrics.jsonl") if line["stage"] == stage]
    title = {"pretrain": "Pretraining", "finetune": "Fine-tuning"}[stage]
    metric = {"pretrain": "accuracy", "finetune": "validation correlation"}[stage]
    loss = {"pretrain": "loss (nats)", "finetune": "loss"}[stage]
    expected = [
        (loss, BLUE, "loss"),
        (loss, ORANGE, "valid_loss"),
        ("learning rate", BLUE, "learning_rate"),
        ("promoters per second", BLUE, "promoters_per_second"),
        *{
            "pretrain": [(metric, BLUE, "accuracy"), (metric, ORANGE, "valid_accuracy")],
            "finetune": [(metric, ORANGE, "valid_pearson"), (metric, GREEN, "valid_spearman")],
        }[stage],
    ]
    for figure, colour, name in expected:
        points = np.array([(line["epoch"], line[name]) for line in lines if name in line])
        assert len(points) == (3 if name.startswith("valid") else 9)
        axes = figures[f"{title}: {figure}"][0]
        (line,) = axes.lines(colour)
        assert line == pytest.approx(points, rel=1e-3)
        if name.startswith("valid"):
            assert axes.marks(colour) == pytest.approx(points, rel=1e-3)


def test_equal_curves_are_drawn_once():
    one, same, other = (
        Curve(name, [1, 2], values, BLUE) for name, values in (("a", [3, 4]), ("b", [3, 4]), ("c", [3, 5]))
    )
    assert without_repeats([one, None, same, other]) == [one, other]


def test_long_curves_are_binned_means(made, tmp_path):
    folder = start(made, tmp_path)
    values = np.random.default_rng(1).random(3 * POINTS - 1)
    with Tracker(folder, is_rank0=True) as tracker:
        tracker.begin("pretrain", 0)
        for step, value in enumerate(values, 1):
            tracker.log("pretrain", step, step / 100, {"loss": value})
    write_report(folder)
    (line,) = read_figures((folder / "report.html").read_text())["Pretraining: loss (nats)"][0].lines(BLUE)
    ends = np.append(np.arange(0, len(values), 3), len(values))
    expected = [values[a:b].mean() for a, b in itertools.pairwise(ends)]
    assert len(line) <= POINTS
    assert line[:, 1] == pytest.approx(np.array(expected), abs=1e-3)


def test_density_counts_every_cell(figures, test_split):
    _, labels, predictions = test_split
    axes = figures["Predicted and measured expression"][0]
    cells = {}
    for label, prediction in zip(labels, predictions, strict=True):
        cell = (np.floor(2 * label + 0.5) / 2, np.floor(2 * prediction + 0.5) / 2)
        cells[cell] = cells.get(cell, 0) + 1
    limits = class_limits(max(cells.values()))
    boxes = {shade: axes.boxes(shade) for shade in SHADES}
    assert sum(map(len, boxes.values())) == len(cells)
    used = [shade for shade in SHADES if len(boxes[shade])]
    assert len(used) == len(limits)  # few promoters: every class occurs
    for place, shade in enumerate(used):
        high = limits[place + 1] if place + 1 < len(limits) else np.inf
        expected = sorted(cell for cell, n in cells.items() if limits[place] <= n < high)
        assert boxes[shade][:, 1] - boxes[shade][:, 0] == pytest.approx(0.5, abs=1e-3)
        middles = np.stack([boxes[shade][:, :2].mean(1), boxes[shade][:, 2:].mean(1)], axis=1)
        assert np.array(sorted(map(tuple, np.round(2 * middles) / 2))) == pytest.approx(np.array(expected))


def test_class_limits_are_round_numbers():
    assert class_limits(1) == [1]
    assert class_limits(4) == [1, 2]
    assert class_limits(120) == [1, 2, 5, 10, 20, 50, 100]
    assert class_limits(900) == [1, 3, 10, 30, 100, 300]
    assert class_limits(10**9) == [1, 10, 100, 1000, 10**4, 10**5, 10**6]


def interval_of_mean(values):
    return ttest_1samp(values, 0).confidence_interval(0.95)


def by_label(_insert, label):
    return np.floor(label + 0.5)


def by_length(insert, _label):
    return len(insert)


def by_gc(insert, _label):
    """Steps of 5 %, counted from 0."""
    return sum(insert.count(base) for base in "GC") * 20 // sum(insert.count(base) for base in "ACGT")


@pytest.mark.parametrize(
    ("title", "group", "width", "shift"),
    [
        ("Residuals by expression", by_label, 1, 0),
        ("Residuals by insert length", by_length, 1, 0),
        ("Residuals by GC content", by_gc, 5, 2.5),
    ],
)
def test_residuals_by_group(figures, page, test_split, title, group, width, shift):
    sequences, labels, predictions = test_split
    groups = {}
    for sequence, label, prediction in zip(sequences, labels, predictions, strict=True):
        groups.setdefault(group(sequence[17:-13], label), []).append(label - prediction)
    steps = sorted(groups)
    upper, lower, _ = figures[title]
    means = np.array([(width * step + shift, np.mean(groups[step])) for step in steps])
    many = np.array([len(groups[step]) >= FEW for step in steps])
    assert many.any()
    assert (~many).any()
    assert upper.marks(BLUE, lower) == pytest.approx(means[many], abs=1e-3)
    assert upper.marks(BLUE, lower, hollow=True) == pytest.approx(means[~many], abs=1e-3)
    for step, x, has_interval in zip(steps, means[:, 0], many, strict=True):
        low, high = np.quantile(groups[step], [0.25, 0.75])
        assert shows(upper, PALE_BLUE, np.array([(x, low), (x, high)]), lower)
        low, high = interval_of_mean(groups[step]) if has_interval else (np.nan, np.nan)
        assert shows(upper, BLUE, np.array([(x, low), (x, high)]), lower) == has_interval
    bars = lower.boxes(GREY)
    assert bars[:, 3] == pytest.approx([len(groups[step]) for step in steps], rel=1e-3)
    assert bars[:, 1] - bars[:, 0] == pytest.approx(0.88 * width, rel=1e-3)
    # The table below the figure holds the same numbers, in the same units.
    assert (f"{width * steps[0]} to {width * (steps[0] + 1)} " in section_text(page, title)) == (width == 5)
    section = page[page.index(f"<h2>{title}</h2>") :]
    table = text_of(section[section.index("<table>") : section.index("</table>") + len("</table>")])
    assert all(f" {np.mean(groups[step]):.6g} " in table for step in steps)


def test_calibration_is_of_twenty_equal_groups(figures, test_split):
    _, labels, predictions = test_split
    groups = np.array_split(np.argsort(predictions, kind="stable"), 20)
    axes = figures["Calibration"][0]
    expected = np.array([(predictions[rows].mean(), labels[rows].mean()) for rows in groups])
    assert axes.marks(BLUE) == pytest.approx(expected, abs=1e-3)
    for rows, (x, _) in zip(groups, expected, strict=True):
        low, high = interval_of_mean(labels[rows])
        assert shows(axes, BLUE, np.array([(x, low), (x, high)]))


def test_scores_and_noise_ceiling(run, page, figures, test_split):
    sequences, labels, predictions = test_split
    r, rho = pearsonr(predictions, labels).statistic, spearmanr(predictions, labels).statistic
    ceiling = np.corrcoef(true_expression_of(sequences), labels)[0, 1]
    axes = figures["Scores"][0]
    assert axes.boxes(BLUE)[0, 1] == pytest.approx(r, abs=1e-3)
    assert axes.boxes(GREY)[:, 1] == pytest.approx([0, ceiling], abs=1e-3)
    assert axes.lines("#374151")[0][:, 0] == pytest.approx([0.111, 0.888], abs=1e-3)
    assert {"0.000", f"{r:.3f}", f"{ceiling:.3f}"} <= set(axes.texts)
    text = text_of(page)
    summary = json.loads((run / "summary.json").read_text())
    valid = summary["scores"]["valid"]
    assert f"Pearson {valid['pearson']:.4f} (0.1110 to 0.8880) {r:.4f} (0.1110 to 0.8880)" in text
    assert f"Spearman {valid['spearman']:.4f} (0.2220 to 0.7770) {rho:.4f} (0.2220 to 0.7770)" in text
    assert f"mean squared error (squared units) {valid['mse']:.4f} {np.mean((predictions - labels) ** 2):.4f}" in text
    assert f"a Pearson of {ceiling:.4f} with their noisy labels" in text
    assert "95 % confidence intervals" in section_text(page, "Scores")
    assert "best saved model (after training step 120)" in text


def test_labels_and_the_threshold(made, figures):
    with open_dataset(made.config.dataset.path) as connection:
        labels = np.array([label for (label,) in connection.execute("select expression from promoters").fetchall()])
        ((cut,),) = connection.execute("select cut from dataset").fetchall()
    axes = figures["Labels and the threshold"][0]
    below, above = axes.boxes(GREY), axes.boxes(BLUE)
    values = np.unique(np.floor(labels))
    assert below[:, 0] == pytest.approx(values, abs=1e-2)
    assert below[:, 3] == pytest.approx([np.sum((labels // 1 == v) & (labels < cut)) for v in values], abs=0.2)
    assert above[:, 3] - above[:, 2] == pytest.approx(
        [np.sum((labels // 1 == v) & (labels >= cut)) for v in values], abs=0.2
    )
    assert axes.lines(ORANGE)[0][:, 0] == pytest.approx(cut, abs=1e-3)


def test_settings_and_machine(run, page, made):
    text = text_of(page)
    facts = json.loads((run / "run.json").read_text())
    for expected in (
        "promoter-bert: run first",
        "Finished on 2026-01-02 at 03:04:05 UTC.",
        "BERT: 1 layer, hidden size 16, 2 heads, intermediate size 32, dropout 0.1; 3-mers, frames, flank 5 bases",
        shlex.join(facts["command"]),
        facts["machine"],
        f"torch {facts['packages']['torch']}",
        f"python {facts['python']}",
        f"dataset key {facts['dataset_key'][:16]}",
        f"Dataset {facts['dataset_key']}; shards {facts['shard_key']}",
        "Fine-tuning 1,200 150 150",
        "Training took 180 steps (2.25 epochs, 3,725 s). The best saved model is the one after step 120",
        "Loss: the mean squared error of the",
    ):
        assert expected in text, expected
    assert "global_batch: 32" in page
    assert '"zero_optimization"' in html.unescape(page)


def test_page_has_no_external_references(page):
    reader = Reader(page)
    assert "http" not in page
    assert not {"script", "img", "link", "iframe", "image"} & set(reader.seen)
    assert len(reader.ids) == len(set(reader.ids))
    assert all(reference[0] == "#" and reference[1:] in reader.ids for reference in reader.references)
    assert "nan" not in text_of(page).split()


def test_same_run_gives_same_bytes(run, page, tmp_path):
    write_report(run, tmp_path / "again.html")
    assert (tmp_path / "again.html").read_text() == page


SUBSETS = {
    name: CorrelationScores(rows, r, r - 0.1, (r - 0.05, r + 0.05), (r - 0.2, r + 0.07))
    for name, rows, r in (("all", 9045, 0.71), ("high", 96, 0.13), ("motif_tiling", 263, -0.02))
}
SCORE = asdict(DreamScore(SUBSETS, 0.76, 0.6, []))
"""Output of promoter-bert score --json."""


def test_dream_score_and_published_teams(run, tmp_path):
    score = tmp_path / "score.json"
    score.write_text(json.dumps(SCORE))
    write_report(run, tmp_path / "report.html", score=score)
    page = (tmp_path / "report.html").read_text()
    figures = read_figures(page)
    by_subset = figures["Pearson by subset"][0]
    boxes = by_subset.boxes(BLUE)
    assert np.where(boxes[:, 0] < -1e-3, boxes[:, 0], boxes[:, 1]) == pytest.approx([0.71, 0.13, -0.02], abs=1e-3)
    intervals = [line[:, 0] for line in by_subset.lines("#374151")]
    assert np.array(intervals) == pytest.approx(np.array([[0.66, 0.76], [0.08, 0.18], [-0.07, 0.03]]), abs=1e-3)
    for place, kind in enumerate(("Pearson", "Spearman")):
        board = figures[f"{kind} Score"][0]
        teams = sorted((scores[place] for scores in LEADERBOARD.values()), reverse=True)
        assert board.boxes(GREY)[:, 1] == pytest.approx(teams, abs=1e-3)
        assert board.boxes(BLUE)[:, 1] == pytest.approx([SCORE[f"{kind.lower()}_score"]], abs=1e-3)
        assert {"first", *LEADERBOARD} <= set(board.texts)
    text = text_of(page)
    assert "motif tiling 263 -0.0200 (-0.0700 to 0.0300) -0.1200 (-0.2200 to 0.0500)" in text
    assert "not the 9,045 rows scored here" in text
    score.write_text(json.dumps({**SCORE, "pearson_score": None, "spearman_score": None, "missing": ["SNVs"]}))
    write_report(run, tmp_path / "report.html", score=score)
    assert "no Pearson Score and no Spearman Score" in (tmp_path / "report.html").read_text()
    for wrong in ("[]", "{", "{}", '{"subsets": {}, "pearson_score": null, "spearman_score": null}'):
        score.write_text(wrong)
        with pytest.raises(UserError, match=r"score\.json: "):
            write_report(run, score=score)


def test_masked_kmers_and_baselines(made, tmp_path):
    folder = start(made, tmp_path)
    log(folder)
    summary = finish(made, folder)
    baselines = {
        "most_frequent_kmer": {"accuracy": 0.1571, "insert_accuracy": 0.1482, "kmer": "TTT", "insert_kmer": "AAA"},
        "kmer_given_neighbours": {"accuracy": 0.1663, "insert_accuracy": 0.1594},
    }
    facts = json.loads((folder / "run.json").read_text())
    command = ["train.py", "--local_rank=0", "dataset.path=my rows.duckdb"]  # by DeepSpeed's launcher
    (folder / "run.json").write_text(json.dumps({**facts, "command": command}))
    summary["masked"] = {
        "accuracy": 0.1561,
        "insert_accuracy": 0.1772,
        "base_perplexity": 3.1234,
        "baselines": baselines,
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    write_report(folder)
    text = text_of((folder / "report.html").read_text())
    assert "best saved model most frequent k-mer (TTT) most likely k-mer between its neighbours" in text
    assert "accuracy 0.1561 0.1571 0.1663 accuracy in the insert 0.1772 0.1482 0.1594" in text
    assert "perplexity per base 3.1234 - -" in text
    assert "command train.py 'dataset.path=my rows.duckdb' model" in text
    below = "worse than always guessing the most frequent one"
    assert below in text
    masked = summary["masked"] | {"insert_base_perplexity": 3.2}
    assert below in describe_summary({"masked": masked})
    assert below not in describe_summary({"masked": masked | {"accuracy": 0.1961}})
