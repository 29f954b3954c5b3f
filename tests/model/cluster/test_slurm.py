"""Checks of a Slurm job of one node, with programs that take Slurm's place."""

import json
import os

import pytest

from model.cluster.doctor import TrainingPlan
from model.cluster.slurm import check_job
from tests.conftest import ROOT

SCONTROL = """#!/bin/sh
case "$*" in
*hostnames*) echo here;;
*batch_script*) echo "$SCRIPT";;
*) echo "JobId=7 JobState=RUNNING Requeue=$REQUEUE TimeLimit=$LIMIT";;
esac
"""
SRUN = """#!/bin/sh
while [ "$1" != sh ]; do shift; done
exec "$@"
"""
JOB = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "here", "SLURM_NNODES": "1"}
TASKS = {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2"}


@pytest.fixture
def check(made, tmp_path, monkeypatch):
    """Check a job; returns the findings by check."""
    for name, text in {"scontrol": SCONTROL, "srun": SRUN}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    places = {"dataset.path": made.config.dataset.path, "shards.path": made.config.shards.path, "assay.flank": 5}
    places |= {"shards.record_promoters": 100, "shards.shard_megabytes": 0.05, "run.path": str(tmp_path / "runs")}
    overrides = [f"{name}={json.dumps(value)}" for name, value in places.items()]
    plan = TrainingPlan(made.config, ROOT / "config.yaml", overrides, ROOT / "ds_config.json", 29512, None)

    def run(environment, requeue="1", limit="1-00:00:00", script="#SBATCH --signal=B:USR1@180"):
        for name, value in {"REQUEUE": requeue, "LIMIT": limit, "SCRIPT": script}.items():
            monkeypatch.setenv(name, value)
        return {finding.check: finding for finding in check_job(plan, environment)}

    return run


def test_a_right_job_has_no_problem(check):
    findings = check(JOB | TASKS)
    assert {finding.state for finding in findings.values()} == {"ok"}
    assert {"variables", "requeue", "time limit", "tasks", "project", "shards", "GPUs per task"} < findings.keys()


def test_outside_a_job_nothing_else_is_checked(check):
    (finding,) = check({}).values()
    assert finding.state == "wrong"
    assert "SLURM_JOB_ID" in finding.result


@pytest.mark.parametrize(
    ("changes", "check_name", "state"),
    [
        ({"requeue": "0"}, "requeue", "warning"),
        ({"script": ""}, "time limit", "warning"),
        ({"script": "#SBATCH --signal=B:USR1@20"}, "time limit", "warning"),
        ({"script": "#SBATCH --signal=HUP@180"}, "time limit", "warning"),
        ({"script": "#SBATCH --signal=TERM"}, "time limit", "ok"),
        ({"script": "", "limit": "UNLIMITED"}, "time limit", "ok"),
    ],
)
def test_options_of_the_job(check, monkeypatch, changes, check_name, state):
    monkeypatch.setattr("model.cluster.slurm.check_together", _no_answers)
    assert check(JOB | TASKS, **changes)[check_name].state == state


def test_uneven_tasks_are_reported(check, monkeypatch):
    monkeypatch.setattr("model.cluster.slurm.check_together", _no_answers)
    assert check(JOB | TASKS | {"SLURM_NTASKS": "3"})["tasks"].state == "wrong"


def _no_answers(*_):
    return {}
    yield
