import gzip
import json
import shutil
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.integration.conftest import Workspace, by_the_model_card, make_workspace
from tests.integration.test_resume import free_port

pytestmark = pytest.mark.processes

L, R = "TGCATTTTTTTCACATC", "GGTTACGGCTGTT"


@pytest.fixture
def workspace(tmp_path):
    return make_workspace(tmp_path / "work")


def test_command_line_starts_without_heavy_imports():
    """Large packages are imported only when they are needed."""
    code = (
        "import sys, model.cli.app; "
        "heavy = {'torch', 'transformers', 'deepspeed', 'duckdb', 'pyarrow', 'scipy', 'numpy', 'requests',"
        "'matplotlib'}; "
        "heavy &= set(sys.modules); "
        "sys.exit(', '.join(heavy) or 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["build", "none.tsv"], 1),
        (["build", "rows.tsv"], 1),
        (["query", "select 1"], 1),
        (["shards"], 1),
        (["verify", "nowhere"], 1),
        (["predict", "nowhere", "rows.tsv", "-o", "out.tsv"], 1),
        (["ceiling"], 1),
        (["report", "nowhere"], 1),
        (["report", "."], 1),
        (["compare", "nowhere", "elsewhere"], 1),
        (["compare", "nowhere"], 2),
        (["generate", "rows.doc"], 1),
        (["query", "select 1", "--dataset", "rows.tsv"], 1),
        (["build", "rows.tsv", "finetune_valid=0.1"], 1),
        (["build", "rows.tsv", "rows.tsv"], 1),
        (["predict", "nowhere", "rows.tsv", "-o", "rows.tsv"], 1),
        (["query", "select 1", "--format", "xml"], 2),
        (["verify", "nowhere", "shards.k=4"], 1),
        (["build", "rows.tsv", "dataset.finetune_valid=0.6", "dataset.finetune_test=0.6"], 1),
        (["build"], 2),
        (["shards", "--workers", "two"], 2),
        (["nothing"], 2),
    ],
)
def test_exit_codes_and_no_traceback(workspace, command, code):
    (workspace.folder / "rows.tsv").write_text("acgt\t1\n")
    done = workspace.run("promoter-bert", *command, check=False)
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert done.stderr.strip()


def test_rejects_agree_in_summary_and_json(workspace):
    rows = [f"{L}{'ACGT' * n}{R}\t{n}\r\n" for n in range(1, 15)] + [f"{L}acgt{R}\t1\n", f"{L}ACGT{R}\tnan\n"]
    (workspace.folder / "rows.tsv.gz").write_bytes(gzip.compress("".join(rows).encode()))
    sizes = ("dataset.pretrain_valid=0",)
    text = workspace.run("promoter-bert", "build", "rows.tsv.gz", *sizes).stdout
    assert "1: lower-case bases" in text
    assert "1: expression is NaN" in text
    result = json.loads(workspace.run("promoter-bert", "build", "rows.tsv.gz", *sizes, "--json").stdout)
    assert result["promoters"] == 14
    assert result["rejects"] == {"expression is NaN": 1, "lower-case bases": 1}


def test_invalid_and_writing_queries_are_refused(prepared):
    wrong = prepared.run("promoter-bert", "query", "select nothing from promoters", check=False)
    assert wrong.returncode == 1
    assert "nothing" in wrong.stderr
    writing = prepared.run("promoter-bert", "query", "delete from promoters", check=False)
    assert writing.returncode == 1
    assert "read-only" in writing.stderr


def test_unchanged_shards_are_not_rewritten(prepared):
    prepared.run("promoter-bert", "shards")
    before = times_of_shards(prepared)
    done = prepared.run("promoter-bert", "shards", "--json")
    assert json.loads(done.stdout)["written"] == 0
    assert times_of_shards(prepared) == before


def times_of_shards(workspace):
    return {path: path.stat().st_mtime_ns for path in (workspace.folder / "shards").rglob("*/*")}


def test_query_output_formats(prepared):
    import pyarrow.parquet as pq

    select = "select split, count(*) as n from finetune group by all order by all"
    expected = [{"split": "test", "n": 150}, {"split": "train", "n": 1200}, {"split": "valid", "n": 150}]
    assert json.loads(prepared.run("promoter-bert", "query", "--json", select).stdout) == expected
    assert prepared.run("promoter-bert", "query", "--format", "csv", select).stdout == (
        '"split","n"\n"test",150\n"train",1200\n"valid",150\n'
    )
    for name in ("q.json", "q.parquet"):
        assert prepared.run("promoter-bert", "query", select, "-o", name).stdout == f"{name}: 3 rows\n"
    assert json.loads((prepared.folder / "q.json").read_text()) == expected
    assert pq.read_table(prepared.folder / "q.parquet").to_pylist() == expected
    assert json.loads(prepared.run("promoter-bert", "query", "--json", f"{select} limit 0").stdout) == []
    table = prepared.run("promoter-bert", "query", "from promoters", "--rows", "10").stdout
    assert "1500 rows (10 shown)" in table
    assert all(name in table for name in ("id", "sequence", "expression"))
    for writing in ("copy (select 1) to 'dataset.duckdb'", "attach 'new.duckdb'"):
        refused = prepared.run("promoter-bert", "query", writing, check=False)
        assert "expected a select" in refused.stderr
    two = prepared.run("promoter-bert", "query", "select 1; select 2", check=False)
    assert "expected one statement, got 2" in two.stderr


def test_only_the_deleted_shard_is_rewritten(prepared, tmp_path):
    shutil.copytree(prepared.folder, tmp_path / "work", ignore=shutil.ignore_patterns("runs"))
    workspace = Workspace(tmp_path / "work")
    files = {path: path.read_bytes() for path in workspace.folder.glob("shards/k3/*/*.tar")}
    next(iter(files)).unlink()
    assert json.loads(workspace.run("promoter-bert", "shards", "--json").stdout)["written"] == 1
    assert {path: path.read_bytes() for path in workspace.folder.glob("shards/k3/*/*.tar")} == files


def test_invalid_models_and_outputs_are_refused(trained):
    (trained.folder / "few.txt").write_text(f"{L}ACGT{R}\n")
    for model, output, message in (
        ("runs/paper/pretrained", "out.tsv", "pretrained only"),
        ("runs", "out.tsv", "no model here"),
        ("runs/paper/model", "few.txt", "input file, too"),
        ("runs/paper/model", "out.doc", "expected a name ending in .tsv, .txt, .csv, .parquet"),
        ("runs/paper/model", "runs", "is a folder"),
    ):
        done = trained.run("promoter-bert", "predict", model, "few.txt", "-o", output, check=False)
        assert done.returncode == 1
        assert message in done.stderr
    assert (trained.folder / "few.txt").read_text() == f"{L}ACGT{R}\n"
    assert not (trained.folder / "out.tsv").exists()


def test_unlabelled_rows_are_built_and_shown_but_not_trained_on(workspace):
    rows = "".join(f"{L}{'ACGT' * (n % 7 + 1)}{R}\n" for n in range(200))
    (workspace.folder / "unlabelled.txt").write_text(rows)
    assert "labels: none; " in workspace.run("promoter-bert", "build", "unlabelled.txt").stdout
    for command in ("stats", "shards"):
        workspace.run("promoter-bert", command)
    workspace.run("promoter-bert", "verify", "shards/k3")
    done = workspace.run("python", "train.py", check=False)
    assert done.returncode == 1
    assert "has no rows in pretrain/train, pretrain/valid, finetune/train, finetune/valid: no labels" in done.stderr
    assert "dataset.finetune_train" in done.stderr


def test_a_run_is_reported_and_compared(trained):
    """The page by the summary that train.py left; see model/reporting/test_run_page.py for the figures."""
    run = trained.folder / "runs" / "paper"
    summary = json.loads((run / "summary.json").read_text())
    result = json.loads(trained.run("promoter-bert", "report", "runs/paper", "--json").stdout)
    assert result["page"] == "runs/paper/report.html"
    assert (result["run"], result["finished"], result["missing"]) == ("paper", True, [])
    page = (run / "report.html").read_text()
    for split in ("valid", "test"):
        assert f"{summary['scores'][split]['pearson']:.4f}" in page
    for heading in (
        "Scores",
        "Settings and machine",
        "Data",
        "Pretraining",
        "Fine-tuning",
        "Predicted and measured expression",
    ):
        assert f"<h2>{heading}</h2>" in page
    assert "<h2>Challenge</h2>" not in page
    shutil.copytree(run, trained.folder / "again" / "paper")
    trained.run("promoter-bert", "compare", "runs/paper", "again/paper", "-o", "two.html")
    comparison = json.loads(trained.run("promoter-bert", "compare", "runs/paper", "again/paper", "--json").stdout)
    assert comparison["page"] == "compare.html"
    assert [each["scores"] for each in comparison["runs"]] == [summary["scores"]] * 2
    assert comparison["differences"] == {}
    assert (trained.folder / "two.html").read_text() == (trained.folder / "compare.html").read_text()


def test_the_model_card_loads_its_model(trained):
    """Its snippet gives what `predict` gives."""
    by_card, by_predict = by_the_model_card(trained, "paper")
    assert by_card == pytest.approx(by_predict, abs=1e-4)


def test_rows_of_which_none_can_be_predicted_are_an_error(trained):
    (trained.folder / "lower.txt").write_text(f"{'acgt' * 6}\n" * 3)
    done = trained.run("promoter-bert", "predict", "runs/paper/model", "lower.txt", "-o", "lower.tsv", check=False)
    assert done.returncode == 1
    assert "nothing to predict (3 rows: lower-case bases; first: row 1, 'a' at 1)" in done.stderr
    assert not (trained.folder / "lower.tsv").exists()


def test_unwritable_output_is_an_error_without_traceback(trained):
    (trained.folder / "few.txt").write_text(f"{L}ACGT{R}\n" * 2)
    for command in ("query --format csv 'from promoters'", "predict runs/paper/model few.txt -o -"):
        done = trained.run("sh", "-c", f"promoter-bert {command} > /dev/full", check=False)
        assert done.returncode != 0
        assert "No space left" in done.stderr
        assert "Traceback" not in done.stderr


def test_predictions_to_standard_output(trained):
    (trained.folder / "few.txt").write_text(f"{L}ACGT{R}\n" * 2)
    for output in ("-", "/dev/stdout"):
        done = trained.run("promoter-bert", "predict", "runs/paper/model", "few.txt", "-o", output)
        assert [line.split("\t")[0] for line in done.stdout.splitlines()] == [f"{L}ACGT{R}"] * 2
        assert "2 promoters" in done.stderr


def test_predictions_in_python_follow_the_rules_of_the_assay(trained):
    code = f"""
from model.prediction.predictor import Predictor
from pipeline.errors import UserError
p = Predictor("runs/paper/model")
assert p.predict(["{L}ACGTNACGT{R}", "{L}A{R}"]).shape == (2,)
assert p.predict([]).shape == (0,)
for wrong in ([""], ["acgt"], [None]):
    assert str(p.predict(wrong)) == "[nan]"
try:
    p.predict("{L}ACGT{R}")
except UserError as error:
    print(error)
"""
    process = trained.run("python", "-c", code)
    assert process.stdout == "expected a list of promoters, got one string\n"
    assert "no prediction (nan) for 1: lower-case bases; repair them with assay.lower_case=upper" in process.stderr


def test_predictions_keep_the_order_and_report_invalid_rows(trained):
    good = f"{L}{'ACGT' * 20}{R}"
    lines = [good, "acgt", f"{good}\t3", "", f"{good}\tnan\tmore"]
    (trained.folder / "mixed.txt").write_text("\n".join(lines) + "\n")
    done = trained.run("promoter-bert", "predict", "runs/paper/model", "mixed.txt", "-o", "mixed.tsv", "--json")
    result = json.loads(done.stdout)
    assert result["rows"] == 5
    assert result["problems"] == {"lower-case bases": 1, "no sequence": 1}
    written = [line.split("\t") for line in (trained.folder / "mixed.tsv").read_text().splitlines()]
    assert [sequence for sequence, _ in written] == [good, "acgt", good, "", good]
    values = [value for _, value in written]
    assert values[1] == values[3] == "nan"
    good_values = [float(values[row]) for row in (0, 2, 4)]
    assert good_values == pytest.approx([good_values[0]] * 3, abs=1e-4)  # other places of a batch: a tolerance only
    assert 0 < good_values[0] < 17


def test_predictions_from_parquet_without_labels(trained):
    import pyarrow as pa
    import pyarrow.parquet as pq

    good = f"{L}{'ACGT' * 20}{R}"
    pq.write_table(pa.table({"sequence": [good, None]}), trained.folder / "some.parquet")
    trained.run("promoter-bert", "predict", "runs/paper/model", "some.parquet", "-o", "some.txt")
    written = (trained.folder / "some.txt").read_text().splitlines()
    assert written[0].startswith(good + "\t")
    assert written[1] == "\tnan"


@pytest.mark.long
def test_several_ranks_predict_the_same_as_one_process(trained):
    """DeepSpeed's launcher adds its own option before those of the command."""
    rows = (trained.folder / "train_sequences.txt").read_text().splitlines(keepends=True)[:700]
    (trained.folder / "ranks.tsv").write_text("".join(["acgt\n", *rows]))
    predict = ["predict", "runs/paper/model", "ranks.tsv", "--both-strands", "-o"]
    trained.run("promoter-bert", *predict, "one.tsv", "--workers", "1")
    launcher = ["deepspeed", "--num_accelerators", "2", "--master_port", free_port(), "--module", "model.cli"]
    trained.run(*launcher, *predict, "two.tsv")
    assert (trained.folder / "two.tsv").read_bytes() == (trained.folder / "one.tsv").read_bytes()
    assert (trained.folder / "two.problems.tsv").read_text().splitlines()[1:] == [
        "1\tlower-case bases\t4\t'a' at 1\tacgt"
    ]


def test_explain_writes_page_and_table(trained):
    promoter = (trained.folder / "train_sequences.txt").read_text().split("\t")[0]
    arguments = ["explain", promoter, "-o", "page.html", "-o", "effects.tsv", "--json"]
    result = json.loads(trained.run("promoter-bert", *arguments).stdout)
    assert result["substitutions"] == len((trained.folder / "effects.tsv").read_text().splitlines()) - 1
    assert f"{result['prediction']:.3f}" in (trained.folder / "page.html").read_text()
