import json
from itertools import islice

import pytest

from model.cli.app import main
from model.cluster.doctor import TrainingPlan, check_hosts
from tests.conftest import ROOT


def test_doctor_checks_this_machine_without_a_hostfile(made, tmp_path, capsys):
    values = {"dataset.path": made.config.dataset.path, "shards.path": made.config.shards.path, "assay.flank": 5}
    values |= {"shards.record_promoters": 100, "shards.shard_megabytes": 0.05, "run.path": str(tmp_path / "runs")}
    overrides = [f"{name}={json.dumps(value)}" for name, value in values.items()]
    plan = TrainingPlan(made.config, ROOT / "config.yaml", overrides, ROOT / "ds_config.json", 29511, None)
    findings = {finding.check: finding for finding in check_hosts(None, plan)}
    assert findings.pop("disk").state != "wrong"
    assert {name: finding.state for name, finding in findings.items()} == dict.fromkeys(
        ("project", "clock", "pkill", "port", "shards", "GPUs"), "ok"
    )


def test_doctor_suggests_how_to_start_without_ssh(made, tmp_path, monkeypatch):
    """DeepSpeed connects even to localhost by ssh, unless it is told not to."""
    monkeypatch.setenv("PATH", str(tmp_path))
    plan = TrainingPlan(made.config, ROOT / "config.yaml", [], ROOT / "ds_config.json", 29511, None)
    _, finding = islice(check_hosts(ROOT / "hostfile", plan), 2)
    assert (finding.host, finding.check, finding.state) == ("localhost", "ssh", "wrong")
    assert "--no_ssh_check --master_addr 127.0.0.1 train.py" in finding.fix
    (tmp_path / "two").write_text("localhost slots=1\nworker slots=1\n")
    _, *findings = islice(check_hosts(tmp_path / "two", plan), 4)
    assert findings[0].check == "pdsh" or "--no_ssh_check" not in "".join(one.fix for one in findings)


def test_doctor_reports_a_missing_deepspeed_config(capsys):
    with pytest.raises(SystemExit) as end:
        main(["doctor", "--deepspeed_config", "none.json"])
    assert end.value.code == 1
    assert "error: none.json: no such file" in capsys.readouterr().err
