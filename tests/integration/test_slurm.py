"""The example job on a real Slurm with two nodes: stopped before its time limit, requeued, resumed."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from model.runs.metrics_file import read_metrics
from tests.conftest import ROOT
from tests.integration import slurm as lab
from tests.integration.test_hosts import check_same
from tests.integration.test_resume import copy  # noqa: F401

pytestmark = [
    pytest.mark.processes,
    pytest.mark.long,
    pytest.mark.hosts,
    pytest.mark.skipif(bool(lab.missing()), reason=lab.missing()),
]

RESOURCES = ("--ntasks-per-node=1", "--gpus-per-node=0", "--cpus-per-task=1")
LONG = ("finetune.max_epochs=4", "finetune.early_stop=999", "finetune.evaluate_every=1")


def wait_until(met: Callable[[], object], seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < deadline
        time.sleep(0.3)


@pytest.mark.timeout(600)
def test_stopped_job_is_requeued_and_ends_with_the_same_weights(copy, tmp_path):  # noqa: F811
    work = copy.folder

    def submit(slurm: lab.Slurm, run: str) -> str:
        script = str(ROOT / "examples" / "slurm" / "train.sbatch")
        return slurm.run(work, "sbatch", "--parsable", *RESOURCES, script, f"run.name={run}", *LONG).strip()

    def wait_for_end(slurm: lab.Slurm, job: str) -> dict[str, str]:
        wait_until(lambda: slurm.job(job)["JobState"] not in ("PENDING", "RUNNING", "COMPLETING"))
        return slurm.job(job)

    def is_fine_tuning(run: str) -> bool:
        return any(line["stage"] == "finetune" for line in read_metrics(work / "runs" / run / "metrics.jsonl"))

    with lab.slurm_on_two_hosts(tmp_path / "slurm") as slurm:
        job = submit(slurm, "stopped")
        wait_until(lambda: is_fine_tuning("stopped"))
        # As --signal=B:USR1@180 does before the time limit.
        slurm.run(work, "scancel", "--batch", "--signal=USR1", job)
        wait_until(lambda: slurm.job(job)["JobState"] == "PENDING")
        # A requeued job waits for 2 minutes. Within the second of its end, the nodes would refuse it.
        slurm.run(work, "scontrol", "update", f"JobId={job}", "StartTime=now+3")
        stopped = wait_for_end(slurm, job)
        log = (work / f"slurm-{job}.out").read_text()
        assert (stopped["JobState"], stopped["Restarts"]) == ("COMPLETED", "1"), log
        assert "resumes from the checkpoint of step" in log
        never = wait_for_end(slurm, submit(slurm, "never-stopped"))
        assert (never["JobState"], never["Restarts"]) == ("COMPLETED", "0")
    check_same(work / "runs" / "stopped", work / "runs" / "never-stopped")
    assert not list(Path("/tmp").glob(f"promoter-bert-slurm-{job}-*"))
