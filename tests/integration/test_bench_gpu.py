"""Measurements for a GPU, in small forms that run on any machine."""

import json
import shutil

import numpy as np
import pytest
import torch

from bench.training import gpu, real_run
from bench.training.bench_train import bench_train
from bench.training.timing import StepPlan
from model.bert.flops import make_stage_cost
from model.config import load_config
from pipeline.errors import UserError
from pipeline.shards.index import read_index
from pipeline.shards.location import shard_folder
from tests.conftest import ROOT
from tests.integration.conftest import Workspace
from tests.model.scoring.toy_challenge import ROWS, make_challenge

pytestmark = [pytest.mark.processes, pytest.mark.long]


def bench(workspace, module, *arguments, check=True):
    """Run a module of bench in a user's folder."""
    return workspace.run(
        "env", f"PYTHONPATH={ROOT}", "python", "-m", f"bench.training.{module}", *arguments, check=check
    )


def test_gpu_measurements_run_in_small_form(tmp_path):
    """Every contender has a row; without Hugging Face's packages, its row shows the error."""
    work = Workspace(tmp_path)
    shutil.copy(ROOT / "config.yaml", tmp_path)
    bench(work, "gpu", "--tiny", "--steps", "3", "--out", "gpu.md", "--trace", "t.json")
    rows = [line.split("|")[1:-1] for line in (tmp_path / "gpu.md").read_text().splitlines() if line.startswith("| ")]
    measured = {name.strip(): numbers[0].strip() for name, *numbers in rows[2:]}
    assert len(measured) == 8
    assert {"finetune, fp32, ZeRO 0, batch 32, eager", "predict, fp32, from file to file"} < measured.keys()
    for name, rate in measured.items():
        missing = rate == "failed: No module named 'datasets'" and "Hugging Face" in name
        assert missing or float(rate.replace(",", "")) > 0, (name, rate)
    assert (tmp_path / "t.json").stat().st_size > 10_000


def test_failed_contender_shows_its_error_and_others_continue():
    def fails(error):
        def measure():
            raise error

        ((name, why, *rest),) = gpu.attempt("row", measure)
        assert (name, len(rest), "".join(rest)) == ("row", len(gpu.HEAD) - 2, "")
        return why

    assert fails(UserError("a split | of no rows\nand more")) == "failed: a split / of no rows"
    assert fails(AssertionError()) == "failed: AssertionError"
    assert fails(FileNotFoundError(2, "none", "x")) == "failed: [Errno 2] none: 'x'"
    assert fails(torch.OutOfMemoryError("CUDA")) == "out of memory"


@pytest.mark.parametrize("place", ["typo/t.json", "res.txt", "folder.json"])
def test_a_trace_that_cannot_be_written_is_refused_before_anything_is_measured(tmp_path, place):
    (tmp_path / "folder.json").mkdir()
    config = load_config(ROOT / "config.yaml")
    with pytest.raises(UserError, match=place):
        bench_train(config, [], ["finetune"], StepPlan(1, 3), None, trace=tmp_path / place)


def test_bench_train_measures_the_users_own_configuration(prepared, tmp_path):
    """A row for each stage and DeepSpeed config; tokens and operations are those of its model and flanks."""
    (tmp_path / "ds2.json").write_text('{"train_micro_batch_size_per_gpu": 8, "zero_optimization": {"stage": 2}}')
    short = ("bench_train", "--steps", "3", "--warm-up", "1")
    configs = [word for file in ("ds_config.json", f"{tmp_path}/ds2.json") for word in ("--deepspeed_config", file)]
    arguments = ("--rows", "1000", "--trace", f"{tmp_path}/t.json", "--json", "finetune.global_batch=24")
    rows = json.loads(bench(prepared, *short, *configs, *arguments).stdout)["rows"]
    assert [row["name"] for row in rows] == [
        "pretrain, fp32, ZeRO 1, batch 32, eager",
        "finetune, fp32, ZeRO 1, batch 24, eager",
        "pretrain, fp32, ZeRO 2, batch 32, eager",
        "finetune, fp32, ZeRO 2, batch 24, eager",
    ]
    config = load_config(prepared.folder / "config.yaml", [f"shards.path={prepared.folder}/shards"])
    index = read_index(shard_folder(config))
    for row, stage in zip(rows, ("pretrain", "finetune") * 2, strict=True):
        assert row["slowest"] <= row["promoters_per_second"] <= row["fastest"]
        assert 0 < row["flop_utilisation"] < 1
        assert 0 <= row["data_wait"] < 1
        per_promoter = [row[f"{name}_per_second"] / row["promoters_per_second"] for name in ("tokens", "operations")]
        usual = np.array([len(index.left_flank) + 80 + len(index.right_flank)])
        assert per_promoter == pytest.approx(make_stage_cost(config, index, stage).count(usual), rel=0.05)
    assert (tmp_path / "t.json").stat().st_size > 10_000
    few = bench(prepared, *short, "--rows", "100", "finetune.global_batch=500", "--stage", "finetune", check=False)
    assert few.returncode == 1
    assert "at least 500 promoters" in few.stderr


def test_a_real_run_is_timed_stage_by_stage_and_not_run_twice(prepared, tmp_path):
    rows = (prepared.folder / "train_sequences.txt").read_text().splitlines()
    toy = make_challenge(tmp_path)
    toy.sequences = [row.split("\t")[0] for row in rows[:ROWS]]
    toy.write()
    arguments = ["train_sequences.txt", "--work", f"{tmp_path}/run", "--json", "--config", "config.yaml"]
    arguments += [
        "--test",
        f"{tmp_path}/test.txt",
        "--labels",
        f"{tmp_path}/labels.tsv",
        "--subsets",
        f"{tmp_path}/subsets",
    ]
    arguments += ["pretrain.max_epochs=0.5", "finetune.max_epochs=0.5"]
    result = json.loads(bench(prepared, "real_run", *arguments).stdout)
    assert list(result["stages"]) == ["build", "shards", "pretrain", "fine-tune", "predict", "score"]
    assert all(stage["wall"] > 0 and stage["cpu"] > 0 and stage["starts"] == 1 for stage in result["stages"].values())
    assert set(result["scores"]) == {"valid", "test"}
    assert "pearson_score" in result["stages"]["score"]["said"]
    assert json.loads(bench(prepared, "real_run", *arguments).stdout) == result  # its times, too
    assert "| fine-tune |" in bench(prepared, "real_run", *[word for word in arguments if word != "--json"]).stdout
    other = bench(prepared, "real_run", *arguments, "--processes", "2", check=False)
    assert other.returncode == 1
    assert "fine-tune is already finished, after another pretrain" in other.stderr


def test_rerun_stages_are_timed_again_and_trainings_run_once(tmp_path):
    names = ("build", "shards", "pretrain", "fine-tune", "predict", "score")
    ran, costs = tmp_path / "ran", {}

    def start(**changed):
        """Return the stages that one start runs. changed: further arguments of their commands."""
        ran.write_text("")
        more = {name.replace("_", "-"): arguments for name, arguments in changed.items()}
        commands = {name: ["sh", "-c", f"echo {name} >> {ran}", *more.get(name, [])] for name in names}
        real_run.check_resumable(commands, costs, tmp_path)
        for name in names:
            real_run.run(name, commands, tmp_path, costs)
        assert json.loads((tmp_path / "costs.json").read_text()) == costs
        return ran.read_text().split()

    assert start() == list(names)
    assert start() == []
    del costs["fine-tune"]["wall"]  # as a kill leaves it
    assert start() == ["fine-tune", "predict", "score"]
    assert [costs[name]["starts"] for name in names] == [1, 1, 1, 2, 1, 1]
    assert start(predict=["another test"]) == ["predict", "score"]
    for changed in ("build", "pretrain", "fine_tune"):
        with pytest.raises(
            SystemExit, match=f"fine-tune is already finished, after another {changed.replace('_', '-')}"
        ):
            start(**{changed: ["another"]})
    del costs["fine-tune"]["wall"]
    assert start(fine_tune=["a smaller micro-batch"]) == ["fine-tune", "predict", "score"]
    assert costs["fine-tune"]["starts"] == 3  # it went on from its checkpoint
    (tmp_path / "runs" / "real").mkdir(parents=True)
    costs.clear()
    with pytest.raises(SystemExit, match=r"not recorded in .*costs\.json"):
        start()


def test_large_batches_are_compared_at_equal_numbers_of_promoters(prepared, tmp_path):
    arguments = ["train_sequences.txt", "--work", str(tmp_path), "--config", "config.yaml", "--batches", "128:3e-3"]
    output = bench(prepared, "large_batch", *arguments, "--seeds", "3", "--epochs", "1", "--every", "0.5").stdout
    own, large = json.loads((tmp_path / "large_batch.json").read_text())
    assert (own["batch"], own["settings"]) == (32, [])
    assert large["settings"][1] == "pretrain.learning_rate=2.000e-03"  # by the square root of the batch
    # With these arguments, warm-up takes three of the nine or ten steps.
    assert large["settings"][3:] == [
        "finetune.global_batch=128",
        "finetune.learning_rate=3.000e-03",
        "finetune.warm_up=3",
    ]
    assert [max(map(int, form["curve"])) for form in (own, large)] == [1200, 1200]
    assert f"| 1,200 | {own['curve']['1200']:.4f} | {large['curve']['1200']:.4f} |" in output
