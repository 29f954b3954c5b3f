import json

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


def test_doctor_reports_a_missing_deepspeed_config(capsys):
    with pytest.raises(SystemExit) as end:
        main(["doctor", "--deepspeed_config", "none.json"])
    assert end.value.code == 1
    assert "error: none.json: no such file" in capsys.readouterr().err
