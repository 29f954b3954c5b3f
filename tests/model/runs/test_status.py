from contextlib import suppress

import pytest

from model.runs.status import LAUNCH, ExitCode, RunStatus, State, classify_end, describe_interruption, read_status
from pipeline.errors import UserError


@pytest.mark.parametrize(
    ("error", "state", "code"),
    [
        (None, State.FINISHED, ExitCode.FINISHED),
        (UserError("no shards"), State.USER_ERROR, ExitCode.USER_ERROR),
        (SystemExit(2), State.USER_ERROR, ExitCode.USAGE),  # argparse
        (SystemExit(0), State.FINISHED, ExitCode.FINISHED),  # --help
        (SystemExit("a rank is lost"), State.FAILED, ExitCode.FAILED),
        (ValueError("a bug"), State.FAILED, ExitCode.FAILED),
        (KeyboardInterrupt(), State.INTERRUPTED, ExitCode.INTERRUPTED),
    ],
)
def test_state_and_exit_code_are_recorded(tmp_path, monkeypatch, error, state, code):
    monkeypatch.setenv(LAUNCH, "mine")
    path = tmp_path / "status.json"
    path.write_text('{"stage": "finetune", "exit_code": 1')  # incomplete after a kill
    status = RunStatus(path)
    with suppress(UserError, SystemExit, ValueError, KeyboardInterrupt), status:
        started = read_status(path)
        if error is not None:
            raise error
    assert (started["state"], started["stage"], started["exit_code"]) == (State.STARTING, None, None)
    assert read_status(path).items() >= {"state": state, "exit_code": code, "launch": "mine"}.items()
    assert (status.state, status.exit_code) == (state, code)
    assert {"host", "process", "time"} < read_status(path).keys()
    assert error is None or classify_end(error) == (state, code)


def test_failed_write_of_the_status_is_ignored(tmp_path):
    (tmp_path / "file").touch()
    with RunStatus(tmp_path / "file" / "status.json"), RunStatus(None):
        pass


def test_an_interruption_before_the_first_checkpoint_is_not_resumed(tmp_path):
    assert "start again" in describe_interruption(tmp_path / "demo")
    (tmp_path / "demo" / "checkpoints" / "pretrain" / "step-000000010").mkdir(parents=True)
    assert "resume" in describe_interruption(tmp_path / "demo")
