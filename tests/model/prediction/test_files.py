import gzip
import io
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from model.bert.build import make_bert_config
from model.prediction.files import predict_files
from model.prediction.predictor import BATCH, Predictor
from model.prediction.request import PredictionRequest, check_request
from model.prediction.writers import as_text
from pipeline.dataset.synthetic.generate import generate
from pipeline.errors import UserError
from pipeline.shards.index import read_index
from tests.conftest import ROOT
from tests.model.saved_model import save_model

pytestmark = pytest.mark.processes

L, R = "TGCATTTTTTTCACATC", "GGTTACGGCTGTT"
ROWS = 5 * BATCH["cpu"] + 7
COMMAND = [str(Path(sys.executable).parent / "promoter-bert"), "predict"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, made):
    """Make a model, and rows of which some are invalid."""
    folder = tmp_path_factory.mktemp("predict")
    save_model(folder / "model", made.config.assay)
    lines = made.rows.read_text().splitlines(keepends=True)[:ROWS]
    lines[3], lines[100], lines[-1] = "acgt\t1\n", "\n", f"{L}ACXGT{R}\t2\n"
    (folder / "rows.tsv").write_text("".join(lines))
    return folder


def sequences(folder):
    return [line.split("\t")[0].strip() for line in (folder / "rows.tsv").read_text().splitlines()]


@pytest.fixture(scope="module")
def expected(folder):
    """Return the bytes of the output of one process without interruption."""
    result = predict_files(
        PredictionRequest(folder / "model", [str(folder / "rows.tsv")], str(folder / "expected.tsv"), workers=1)
    )
    assert (result.rows, result.rows_resumed) == (ROWS, 0)
    return (folder / "expected.tsv").read_bytes()


def test_rows_keep_their_order_and_invalid_rows_are_listed(folder, expected):
    rows = [line.split("\t") for line in expected.decode().splitlines()]
    assert [sequence for sequence, _ in rows] == sequences(folder)
    good = [(sequence, float(value)) for sequence, value in rows if value != "nan"]
    assert len(good) == ROWS - 3
    alone = Predictor(folder / "model").predict([sequence for sequence, _ in good])
    assert [value for _, value in good] == pytest.approx(alone.tolist(), abs=1e-5)
    assert np.std(alone) > 0.01
    assert (folder / "expected.problems.tsv").read_text().splitlines() == [
        "row\tproblem\tbases\tfirst_wrong_base\tsequence",
        "4\tlower-case bases\t4\t'a' at 1\tacgt",
        "101\tno sequence\t0\t\t",
        f"{ROWS}\tletters other than ACGTN\t35\t'X' at 20\t{L}ACXGT{R}",
    ]


@pytest.mark.parametrize("form", ["fasta", "fasta.gz", "parquet", "stdin", "stdin fasta"])
def test_same_rows_in_any_format_give_the_same_bytes(folder, expected, form, tmp_path, monkeypatch):
    import pyarrow as pa

    fasta = "".join(f">row {n}\n{s[:50]}\n{s[50:]}\n" for n, s in enumerate(sequences(folder)))
    name = str(tmp_path / f"rows.{form}")
    if form == "parquet":
        pq.write_table(pa.table({"sequence": sequences(folder)}), name)
    elif form == "fasta":
        Path(name).write_text(fasta)
    elif form == "fasta.gz":
        Path(name).write_bytes(gzip.compress(fasta.encode()))
    else:
        text = fasta if form.endswith("fasta") else (folder / "rows.tsv").read_text()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        name = "-"
    predict_files(PredictionRequest(folder / "model", [name], str(tmp_path / "out.tsv"), workers=1))
    assert (tmp_path / "out.tsv").read_bytes() == expected


def test_parquet_holds_predictions_and_problems(folder, expected, tmp_path):
    predict_files(
        PredictionRequest(folder / "model", [str(folder / "rows.tsv")], str(tmp_path / "out.parquet"), workers=1)
    )
    rows = pq.read_table(tmp_path / "out.parquet").to_pylist()
    lines = [f"{r['sequence']}\t{'nan' if r['prediction'] is None else as_text(r['prediction'])}" for r in rows]
    assert "\n".join(lines) + "\n" == expected.decode()
    problems = {n: row["problem"] for n, row in enumerate(rows, 1) if row["problem"] is not None}
    assert problems == {4: "lower-case bases", 101: "no sequence", ROWS: "letters other than ACGTN"}


def test_killed_prediction_resumes_from_its_last_part(folder, expected, tmp_path):
    output = tmp_path / "out.tsv"
    request = PredictionRequest(folder / "model", [str(folder / "rows.tsv")], str(output), workers=1)

    def end_after_three(done, total, _resumed):
        assert total == ROWS
        if done == 3 * BATCH["cpu"]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_files(request, end_after_three)
    assert not output.exists()
    (tmp_path / ".elsewhere-1.partial.out.tsv").write_text("left by a kill")
    progress = []
    result = predict_files(request, lambda *numbers: progress.append(numbers))
    assert result.rows_resumed == 3 * BATCH["cpu"]
    assert progress[0] == (BATCH["cpu"], ROWS, BATCH["cpu"])
    assert output.read_bytes() == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.problems.tsv", "out.tsv"]


def test_journal_of_another_model_or_setting_is_not_used(folder, made, tmp_path):
    def ended(*_):
        raise KeyboardInterrupt

    output = str(tmp_path / "out.tsv")
    with pytest.raises(KeyboardInterrupt):
        predict_files(PredictionRequest(folder / "model", [str(folder / "rows.tsv")], output, workers=1), ended)
    other = save_model(tmp_path / "other", made.config.assay, seed=1)
    with pytest.raises(KeyboardInterrupt):
        predict_files(PredictionRequest(other, [str(folder / "rows.tsv")], output, workers=1), ended)
    both = PredictionRequest(other, [str(folder / "rows.tsv")], output, both_strands=True, workers=1)
    assert predict_files(both).rows_resumed == 0


def test_sigkill_with_several_processes(folder, tmp_path):
    """Another process cannot predict into the same file at the same time, and workers end with the killed process."""
    generate(tmp_path / "many.tsv", 5_000, seed=2)
    output, journal = tmp_path / "out.tsv", tmp_path / ".out.tsv.partial"
    again = PredictionRequest(folder / "model", [str(tmp_path / "many.tsv")], str(output), workers=1)
    command = [*COMMAND, str(folder / "model"), again.inputs[0], "-o", str(output), "--workers", "2"]
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    wait_for(lambda: journal.exists() and journal.stat().st_size > 300, running)
    os.kill(running.pid, signal.SIGSTOP)
    with pytest.raises(UserError, match=f"process {running.pid} is predicting into"):
        predict_files(again)
    running.kill()
    running.wait()
    wait_for(lambda: not alive_in_session(running.pid))
    assert not output.exists()
    assert 0 < predict_files(again).rows_resumed < 5_000
    predict_files(replace(again, output=str(tmp_path / "plain.tsv")))
    assert output.read_bytes() == (tmp_path / "plain.tsv").read_bytes()
    assert not list(tmp_path.glob(".*"))


def wait_for(true, running=None):
    for _ in range(2400):
        if true():
            return
        assert running is None or running.poll() is None, "it ended before"
        time.sleep(0.05)
    raise AssertionError("two minutes have passed")


def alive_in_session(leader):
    import psutil

    processes = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE:
                processes.append(process.pid)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return processes


def test_both_strands_are_the_mean_of_the_two(tmp_path, made):
    """Without adapters and flanks the reverse complement of a promoter is also valid."""
    bare = made.config.assay.model_copy(update={"left_adapter": "", "right_adapter": "", "flank": 0})
    save_model(tmp_path / "model", bare)
    rng = np.random.default_rng(0)
    promoters = ["".join(rng.choice(list("ACGTN"), size)) for size in (30, 31, 50, 7)]
    other = [sequence.translate(str.maketrans("ACGT", "TGCA"))[::-1] for sequence in promoters]
    one, two = Predictor(tmp_path / "model"), Predictor(tmp_path / "model", both_strands=True)
    mean = (one.predict(promoters) + one.predict(other)) / 2
    assert two.predict(promoters) == pytest.approx(mean, abs=1e-5)
    assert two.predict(promoters) == pytest.approx(two.predict(other), abs=1e-5)
    assert np.abs(one.predict(promoters) - mean).max() > 0.01


@pytest.mark.parametrize(
    ("names", "output", "message"),
    [
        (["-", "rows.tsv"], "out.tsv", "standard input together with files"),
        (["rows.tsv"], "out.doc", r"expected a name ending in \.tsv, \.txt, \.csv, \.parquet"),
        (["rows.tsv"], "rows.tsv", "input file, too"),
        (["out.problems.tsv"], "out.tsv", "input file, too"),
        (["wrong.tsv"], "out.tsv", "nothing to predict"),
        (["rows.tsv"], "typo/out.tsv", "no folder typo; fix: mkdir -p typo,"),
    ],
)
def test_invalid_requests_raise_and_leave_no_file(folder, tmp_path, monkeypatch, names, output, message):
    monkeypatch.chdir(tmp_path)
    for name in ("rows.tsv", "out.problems.tsv"):
        Path(name).write_bytes((folder / "rows.tsv").read_bytes())
    Path("wrong.tsv").write_text(f"{'acgt' * 6}\n" * 2)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(UserError, match=message):
        predict_files(PredictionRequest(folder / "model", names, output, workers=1))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_invalid_requests_raise_before_torch_is_imported(folder, tmp_path):
    """Importing torch takes seconds."""
    script = """
import sys
from pathlib import Path
from model.prediction.request import PredictionRequest, check_request
from model.interpretation.page import explain
from pipeline.errors import UserError
model, rows = Path(sys.argv[1]), sys.argv[2]
for call in (
    lambda: check_request(PredictionRequest(Path("nowhere"), [rows], "out.tsv")),
    lambda: check_request(PredictionRequest(model, ["nowhere.tsv"], "out.tsv")),
    lambda: check_request(PredictionRequest(model, [rows], "typo/out.tsv")),
    lambda: check_request(PredictionRequest(model, [rows], rows)),
    lambda: explain(Path("nowhere"), "ACGT", [Path("out.html")]),
    lambda: explain(model, "ACGT", [Path("out.html")]),
):
    try:
        call()
    except UserError:
        continue
    sys.exit("went through")
check_request(PredictionRequest(model, [rows], "out.tsv"))
sys.exit(", ".join({"torch", "transformers", "matplotlib"} & set(sys.modules)) or 0)
"""
    process = subprocess.run(
        [sys.executable, "-c", script, folder / "model", folder / "rows.tsv"], cwd=tmp_path, check=False
    )
    assert process.returncode == 0
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("both", [False, True])
def test_both_strands_of_a_one_strand_model_warn(folder, made, tmp_path, both):
    messages = []
    save_model(tmp_path / "model", made.config.assay, reverse_complement=both)
    (tmp_path / "rows.tsv").write_text(f"{L}ACGT{R}\n")
    for strands in (False, True):
        request = PredictionRequest(
            tmp_path / "model", [str(tmp_path / "rows.tsv")], str(tmp_path / "out.tsv"), both_strands=strands
        )
        assert predict_files(request, warn=messages.append).rows == 1
    assert ["model was fine-tuned on one strand (f" in text for text in messages] == ([] if both else [True])


@pytest.mark.parametrize("known", [False, True])
def test_model_directory_records_its_strands(made, known):
    config = made.config.model_copy(
        update={"finetune": made.config.finetune.model_copy(update={"reverse_complement": known})}
    )
    assert make_bert_config(config, read_index(made.shards)).promoter_bert["reverse_complement"] is known


@pytest.mark.parametrize("bad", [5, 25])
def test_stream_without_predictions_stays_empty_and_lists_problems(folder, tmp_path, capfd, bad):
    (tmp_path / "rows.tsv").write_text(f"{'acgt' * 6}\n" * bad)
    request = PredictionRequest(folder / "model", [str(tmp_path / "rows.tsv")], "-", workers=1)
    with pytest.raises(
        UserError, match=rf"nothing to predict \({bad} rows: lower-case bases; first: row 1, 'a' at 1\)"
    ):
        predict_files(request)
    assert capfd.readouterr().out == ""
    (tmp_path / "rows.tsv").write_text(f"{'acgt' * 6}\n" * bad + f"{L}ACGT{R}\n")
    predict_files(request)
    out, problems = capfd.readouterr()
    assert [line.split("\t")[0] for line in out.splitlines()] == ["acgt" * 6] * bad + [f"{L}ACGT{R}"]
    title, heads, *lines = problems.splitlines()
    assert (title, heads) == ("rows without a prediction:", "row\tproblem\tbases\tfirst_wrong_base\tsequence")
    assert len(lines) == min(bad, 21)
    assert lines[0] == "1\tlower-case bases\t24\t'a' at 1\tacgtacgtacgtacgtacgtacgt"
    assert lines[-1].startswith("... and 5 more" if bad > 20 else "5\t")


@pytest.mark.parametrize("form", ["tsv", "fasta", "stdin"])
def test_invalid_leaderboard_rows_raise_before_prediction(folder, tmp_path, monkeypatch, form):
    """For inputs that can be read twice, even before the model is loaded. No file is left."""
    good, sample = f"{L}ACGT{R}", tmp_path / "sample.json"
    monkeypatch.chdir(tmp_path)

    def predict_board(sequences):
        text = "".join(f">\n{each}\n" if form == "fasta" else f"{each}\n" for each in sequences)
        Path(f"rows.{form}").write_text(text)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        name = "-" if form == "stdin" else f"rows.{form}"
        calls = []
        request = PredictionRequest(folder / "model", [name], "board.json", workers=1, leaderboard=sample)
        try:
            predict_files(request, lambda rows, *_: calls.append(rows))
        except UserError as error:
            assert calls == [] or form == "stdin"
            assert sorted(path.name for path in tmp_path.iterdir()) == [f"rows.{form}", "sample.json"]
            return str(error)
        return sorted(json.loads(Path("board.json").read_text()))

    sample.write_text('{"1": 0, "3": 0}')
    assert "requires row 3 (from 0), but there are 3 rows" in predict_board([good] * 3)
    assert "row 1 (from 0), which the leaderboard requires, has no prediction: lower-case" in predict_board(
        [good, "acgt", good, good]
    )
    assert predict_board(["acgt", good, good, good]) == ["1", "3"]


@pytest.mark.parametrize(
    ("output", "sample", "message"),
    [("board.tsv", "{}", r"ending in \.json"), ("board.json", '{"a": 1}', "row numbers"), ("board.json", None, "read")],
)
def test_invalid_leaderboard_files_raise(folder, tmp_path, output, sample, message):
    if sample is not None:
        (tmp_path / "sample.json").write_text(sample)
    request = PredictionRequest(folder / "model", [], str(tmp_path / output), leaderboard=tmp_path / "sample.json")
    with pytest.raises(UserError, match=message):
        check_request(request)


@pytest.mark.parametrize("form", ["predict", "csv", "json", "table"])
def test_closed_pipe_ends_a_command_with_sigpipe(folder, made, form):
    """Without a message, and with the shell's exit code for SIGPIPE, as after | head."""
    query = ["query", "from promoters", "--dataset", made.config.dataset.path, "--format", form]
    command = ["predict", folder / "model", folder / "rows.tsv", "-o", "-"] if form == "predict" else query
    reads, writes = os.pipe()
    os.close(reads)
    with open(writes, "wb") as closed:  # noqa: PTH123 (of a descriptor)
        process = subprocess.run([COMMAND[0], *command], stdout=closed, stderr=subprocess.PIPE, text=True, check=False)
    assert process.returncode == 128 + signal.SIGPIPE
    assert not [
        line for line in process.stderr.splitlines() if "\t" not in line and line != "rows without a prediction:"
    ]


FAILS = """
import sys
from model.cli.app import app, main
from pipeline.errors import UserError
@app.command()
def half():
    print("the first half")
    raise {"user": UserError("the other half is missing"), "disk": OSError(5, "the disk failed")}[sys.argv[1]]
main(["half"])
"""


@pytest.mark.parametrize(("error", "message"), [("user", "the other half is missing"), ("disk", "the disk failed")])
def test_errors_are_printed_after_a_closed_pipe(monkeypatch, error, message):
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # with that, the print itself would end it
    reads, writes = os.pipe()
    os.close(reads)
    with open(writes, "wb") as closed:  # noqa: PTH123 (of a descriptor)
        command = [sys.executable, "-c", FAILS, error]
        process = subprocess.run(command, stdout=closed, stderr=subprocess.PIPE, text=True, check=False, cwd=ROOT)
    assert (process.returncode, process.stderr) == (1, f"error: {message}\n")


@pytest.mark.long
def test_memory_does_not_grow_with_standard_input(folder, tmp_path):
    """Inputs of 48 and 240 MB; only the last row is valid, so that prediction is fast."""
    good = sequences(folder)[0]
    script = tmp_path / "peak.py"  # for code without a file, DuckDB assumes an interactive session
    script.write_text(PEAK)
    command = [sys.executable, script, folder / "model", good]
    few, many = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert int(many) - int(few) < 150_000  # kB; DuckDB reads ahead, by up to 90 MB more than for the first 48


PEAK = """
import io, resource, subprocess, sys
from pathlib import Path
from model.prediction.request import PredictionRequest
from model.prediction.files import predict_files
for rows in (200_000, 1_000_000):
    endless = subprocess.Popen(f"yes {'acgt' * 60} | head -n {rows}; echo {sys.argv[2]}", shell=True, stdout=-1)
    sys.stdin = io.TextIOWrapper(endless.stdout)
    assert predict_files(PredictionRequest(Path(sys.argv[1]), ["-"], "/dev/null", workers=1)).rows == rows + 1
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
