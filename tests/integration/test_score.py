"""promoter-bert score from the command line, on a small challenge."""

import json

import pytest

from tests.integration.conftest import Workspace
from tests.model.scoring.toy_challenge import make_challenge

pytestmark = pytest.mark.processes


def test_score_command(tmp_path):
    toy = make_challenge(tmp_path)
    toy.predictions(-toy.labels)
    command = ("promoter-bert", "score", "predictions.tsv", "--labels", "labels.tsv", "--subsets", "subsets")
    workspace = Workspace(tmp_path)
    output = workspace.run(*command, "--public", "public").stdout
    assert "Pearson Score 1.0000, Spearman Score -1.0000" in output
    score = json.loads(workspace.run(*command, "--public", "public", "--json").stdout)
    assert score["pearson_score"] == pytest.approx(1)
    assert score["subsets"]["SNVs"]["spearman"] == pytest.approx(-1)
    assert score["subsets"]["all"]["rows"] < 60
    wrong = workspace.run(*command[:2], "test.txt", *command[3:], check=False)
    assert wrong.returncode == 1
    assert "test.txt, line 1: expected a finite prediction, got nan (60 such lines)" in wrong.stderr
    assert "Traceback" not in wrong.stderr
