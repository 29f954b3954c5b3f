"""Locks: holders and releases."""

import errno
import os
import signal
import subprocess
import sys

import pytest

from pipeline.errors import UserError
from pipeline.io import locks
from pipeline.io.locks import hold_lock
from tests.conftest import ROOT

HOLDER = """
import sys, time; from pathlib import Path; from pipeline.io.locks import hold_lock
held = hold_lock(Path(sys.argv[1]), "is writing"); print("held", flush=True); time.sleep(60)
"""


def test_holder_is_named_until_it_releases(tmp_path):
    path = tmp_path / ".lock"
    with hold_lock(path, "is writing"), pytest.raises(UserError, match=f"^process {os.getpid()} is writing$"):
        hold_lock(path, "is writing")
    hold_lock(path, "is writing").close()


def test_killed_holder_releases_its_lock(tmp_path):
    path = tmp_path / ".lock"
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], cwd=ROOT, stdout=subprocess.PIPE)
    holder.stdout.readline()
    with pytest.raises(UserError, match=f"^process {holder.pid} is writing$"):
        hold_lock(path, "is writing")
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    assert path.read_text() == str(holder.pid)
    with hold_lock(path, "is writing"):
        assert path.read_text() == str(os.getpid())


def test_deleted_lock_file_is_not_held(tmp_path):
    path = tmp_path / ".lock"
    with hold_lock(path, "is writing"):
        path.unlink()
        with hold_lock(path, "is writing"):
            assert path.exists()


def test_read_only_path_is_a_clear_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write"):
        hold_lock(tmp_path / "file" / ".lock", "is writing")


def test_interrupt_at_any_line_releases_the_lock(tmp_path):
    path = tmp_path / ".lock"
    for last in range(1, 100):
        lines = 0

        def trace(frame, event, _value):
            nonlocal lines
            if frame.f_code.co_filename != locks.__file__:
                return None
            lines += event == "line"
            if event == "line" and lines == last:  # noqa: B023
                raise KeyboardInterrupt
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            hold_lock(path, "is writing").close()
            break
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(before)
        with hold_lock(path, "is writing"):
            pass
    assert lines == last - 1 > 5


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK])
def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch, code):
    def without_locks(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("fcntl.flock", without_locks)
    with pytest.raises(UserError, match=rf"{tmp_path}: the file system has no file locks; fix: use a local disk"):
        hold_lock(tmp_path / ".lock", "is writing")
    assert not list(tmp_path.iterdir())
