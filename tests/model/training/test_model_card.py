"""The model card holds the values of its run, and huggingface_hub reads its metadata."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from model.training.model_card import NAME, render_card, write_card
from pipeline.shards.index import read_index


@pytest.fixture
def card(made, finished_run, tmp_path):
    summary = json.loads((finished_run / "summary.json").read_text())
    write_card(tmp_path, summary, read_index(made.shards))
    assert [path.name for path in tmp_path.iterdir()] == [NAME]
    return summary, (tmp_path / NAME).read_text()


def render_other(made, summary, section="finetune", **settings):
    """Render the card of the same run with other settings of a section."""
    config = {**summary["config"], section: {**summary["config"][section], **settings}}
    facts = json.loads((folder_of(summary) / "run.json").read_text())
    return render_card({**summary, "config": config}, facts, read_index(made.shards))


def folder_of(summary):
    return Path(summary["directory"])


def test_metadata_is_read_by_huggingface_hub(card):
    summary, text = card
    data = ModelCard(text).data
    metadata = data.to_dict()
    assert (metadata["library_name"], metadata["pipeline_tag"]) == ("transformers", "text-classification")
    assert data.model_name == "promoter-bert-first"
    test = summary["scores"]["test"]
    results = {result.metric_type: result.metric_value for result in data.eval_results}
    assert results == {
        "pearsonr": pytest.approx(test["pearson"], abs=1e-6),
        "spearmanr": pytest.approx(test["spearman"], abs=1e-6),
        "r_squared": pytest.approx(test["r2"], abs=1e-6),
        "mse": pytest.approx(test["mse"], abs=1e-6),
    }
    assert {result.dataset_split for result in data.eval_results} == {"test"}
    assert all(isinstance(tag, str) for tag in data.tags)


def test_text_holds_the_values_of_the_run(made, card):
    summary, text = card
    index = read_index(made.shards)
    test = summary["scores"]["test"]
    for expected in (
        "# promoter-bert: first",
        "1 layer, hidden size 16",
        "It reads the 3 reading frames",
        f"| test split | 150 | Pearson | {test['pearson']:.4f} | 0.1110 to 0.8880 |",
        f"| test split | 150 | Spearman | {test['spearman']:.4f} | 0.2220 to 0.7770 |",
        f"| test split | 150 | MSE | {test['mse']:.4f} |",
        f"| validation split | 150 | Pearson | {summary['scores']['valid']['pearson']:.4f} |",
        *(f"| {split} | {index.rows(split):,} |" for split in index.splits),
        "| finetune | 180 | 120 | 3,725 | 32 | 0.001 |",
        index.dataset_key,
        index.key,
        f"mean {index.label_mean:.4g}, standard deviation {index.label_sd:.4g}",
        "Splits are random: near-duplicates",
        f"{summary['directory']}/model",
    ):
        assert expected in text, expected
    assert len(index.splits) == 5
    assert not re.search(r"\bNone\b|\bnan\b", text)


def test_card_names_the_kind_of_splits(made, card):
    summary, _ = card

    def render(**settings):
        return render_other(made, summary, "dataset", **settings)

    given, grouped = render(split="column"), render(split="grouped", group_overlap=40, group_column="gene")
    assert "Splits are those of the data." in given
    assert "mismatches or one indel" not in given
    assert "mismatches or one indel" in grouped
    assert re.search(r"share 40 consecutive bases\.\n- So are rows with one value in column gene\.", grouped)


def test_card_describes_tokens_start_and_splits_of_the_run(made, card):
    summary, _ = card
    overlapping = render_other(made, summary, tokens="overlapping")
    assert "It reads the overlapping 3-mers" in overlapping
    (code,) = re.findall(r"```python\n(.*?)```", overlapping, flags=re.DOTALL)
    compile(code, "card", "exec")
    assert (
        "pretrained"
        not in render_other(made, summary, start="scratch").split("## How to load it")[0].split("---\n", 2)[2]
    )
    frozen = render_other(made, summary, start="frozen")
    assert "encoder frozen" in frozen
    assert "Pretraining takes the top 20%" in frozen
    for start, where in (("scratch", "own"), ("frozen", "runs/other/pretrained")):
        without = render_other(made, summary, start=start, pretrained=where)
        assert "Pretraining takes" not in without
        assert "| pretrain/train |" not in without
    assert "the masked language model of another run, `runs/other/pretrained`, and was" in without
    facts = json.loads((folder_of(summary) / "run.json").read_text())
    index = replace(read_index(made.shards), splits={})
    unscored = render_card({**summary, "scores": {}}, facts, index)
    assert ModelCard(unscored).data.eval_results is None
    assert "not known how well this model predicts" in unscored
    valid = render_card({**summary, "scores": {"valid": summary["scores"]["valid"]}}, facts, index)
    assert {result.dataset_split for result in ModelCard(valid).data.eval_results} == {"valid"}


def test_card_warns_of_predictions_on_another_scale(made, card):
    summary, text = card
    assert "Warning" not in text
    facts = json.loads((folder_of(summary) / "run.json").read_text())
    moments = {"prediction_mean": 1.0, "prediction_sd": 0.001, "label_mean": 1.0, "label_sd": 1.0}
    score = {**summary["scores"]["test"], "r2": 0.002, "scale_problems": {"": {"pearson": 0.7, "r2": 0.002, **moments}}}
    warned = render_card({**summary, "scores": {"test": score}}, facts, read_index(made.shards))
    assert "| test split | 150 | R² | 0.0020 |" in warned
    assert re.search(r"\*\*Warning, test split: predictions nearly constant.*R2 0\.002.*\*\*\n", warned)
    assert "see the warning above" in warned.split("## Intended use")[1]
    results = {result.metric_type: result.metric_value for result in ModelCard(warned).data.eval_results}
    assert results["r_squared"] == 0.002


def test_card_mentions_flanks_only_where_there_are_any(made, card):
    summary, text = card
    assert "bases of the plasmid" in text
    facts = json.loads((folder_of(summary) / "run.json").read_text())
    config = summary["config"]
    bare = {**config, "assay": {**config["assay"], "flank": 0}, "dataset": {**config["dataset"], "split": "column"}}
    without = render_card({**summary, "config": bare}, facts, read_index(made.shards))
    assert "bases of the plasmid" not in without
    assert "Splits: given by the input, in a column or as files." in without


def test_card_has_the_leaks_with_the_scores(made, card):
    summary, text = card
    facts = json.loads((folder_of(summary) / "run.json").read_text())
    warned = render_card(summary, facts, read_index(made.shards), leaks="Of 150 rows, 9 are known.")
    assert warned.split("## Scores")[1].partition("## ")[0].count("\nOf 150 rows, 9 are known.\n") == 1
    assert warned.replace("\nOf 150 rows, 9 are known.\n", "") == text
