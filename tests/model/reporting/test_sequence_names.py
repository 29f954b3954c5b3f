"""assay.name: output and pages use the word of the assay for its sequences."""

import json
import re

import pytest

from model.reporting.compare_page import compare_runs
from model.reporting.run_page import write_report
from model.training.model_card import render_card
from pipeline.cli.messages import describe_build, describe_shards
from pipeline.dataset.build import build_dataset
from pipeline.errors import UserError
from pipeline.reporting.dataset_page import write_stats
from pipeline.runtime.text import name_sequences
from pipeline.shards.index import read_index
from pipeline.shards.write import write_shards
from tests.conftest import small_config
from tests.model.run_fixtures import finish, log, start

ENHANCER = "assay.name=enhancer"


def promoters_in(text):
    """Find the word in a text; the program, keys of the configuration and of JSON, and SQL keep it."""
    return re.findall(r"[^\n]{0,40}(?<![\w-])promoters?(?![-_\w])[^\n]{0,20}", text, flags=re.IGNORECASE)


@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [
        ("A promoter, promoters and a promoter.", "enhancer", "An enhancer, enhancers and an enhancer."),
        ("Promoters of a promoter", "5' UTR", "5' UTRs of a 5' UTR"),
        ("promoter-bert keeps record_promoters", "silencer", "promoter-bert keeps record_promoters"),
        ("Promoters: a promoter", "promoter", "Promoters: a promoter"),
        ("Promoters", "MPRA element", "MPRA elements"),
    ],
)
def test_words(text, name, expected):
    assert name_sequences(text, name) == expected


@pytest.mark.parametrize("name", ["", " enhancer", "a|b", "x" * 41, "<b>"])
def test_names_that_would_break_a_page_are_refused(tmp_path, name):
    with pytest.raises(UserError, match=r"assay\.name"):
        small_config(tmp_path, f"assay.name={name!r}")


def test_output_and_page_of_a_dataset(made, tmp_path):
    config = small_config(tmp_path, ENHANCER)
    built = build_dataset([str(made.rows)], config)
    lines = [*describe_build(built), *describe_shards(write_shards(config), config.assay.name)]
    assert not promoters_in("\n".join(lines))
    assert f"{built.info.promoters:,} enhancers" in lines[0]
    write_stats(config.dataset.path, tmp_path / "stats.html")
    page = (tmp_path / "stats.html").read_text()
    assert not promoters_in(page)
    assert "k-mers of strong enhancers" in page


def test_pages_and_card_of_a_run(made, finished_run, tmp_path):
    folder = start(made, tmp_path, ENHANCER, "run.name=second")
    log(folder)
    finish(made, folder)
    page = (tmp_path / "report.html", tmp_path / "compare.html")
    write_report(folder, page[0])
    assert not promoters_in(page[0].read_text())
    compare_runs([folder], page[1])
    assert not promoters_in(page[1].read_text())
    compare_runs([folder, finished_run], page[1])
    assert "held-out sequences" in page[1].read_text()


def test_model_card(made, finished_run):
    summary = json.loads((finished_run / "summary.json").read_text())
    facts = json.loads((finished_run / "run.json").read_text())
    config = summary["config"] | {"assay": summary["config"]["assay"] | {"name": "enhancer"}}
    for settings in (config, config | {"finetune": config["finetune"] | {"tokens": "overlapping"}}):
        card = render_card(summary | {"config": settings}, facts, read_index(made.shards))
        python = re.compile(r"```python.*?```", re.DOTALL)  # the variable in the example keeps its name
        assert not promoters_in(python.sub("", card))
        assert "Expression of an enhancer (regression)" in card
    assert "Expression of a promoter (regression)" in render_card(summary, facts, read_index(made.shards))
