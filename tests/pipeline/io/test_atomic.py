import os
import signal
import subprocess
import sys
import time

import pytest

from pipeline.errors import UserError
from pipeline.io import atomic
from tests.conftest import ROOT


def test_file_is_complete_or_unchanged(tmp_path):
    path = tmp_path / "new" / "a.json"
    atomic.write_text(path, "one")

    def interrupted():
        with atomic.new_file(path) as temporary:
            temporary.write_text("tw")
            assert path.read_text() == "one"
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        interrupted()
    assert path.read_text() == "one"
    assert [p.name for p in path.parent.iterdir()] == ["a.json"]


def test_path_in_a_file_is_a_clear_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write"):
        atomic.write_text(tmp_path / "file" / "a.txt", "one")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")  # noqa: PTH110
def test_full_disk_is_a_clear_error(tmp_path):

    def write():
        with atomic.new_file(tmp_path / "a.txt") as temporary:
            temporary.symlink_to("/dev/full")
            temporary.write_text("one")

    with pytest.raises(UserError, match="No space left on device; fix: free disk space"):
        write()
    assert list(tmp_path.iterdir()) == []


def test_folder_replaces_another(tmp_path):
    for name in ("first", "second"):
        (tmp_path / "new").mkdir()
        (tmp_path / "new" / name).touch()
        atomic.replace_folder(tmp_path / "new", tmp_path / "target")
        assert [p.name for p in (tmp_path / "target").iterdir()] == [name]
    assert [p.name for p in tmp_path.iterdir()] == ["target"]


def test_folder_that_cannot_be_replaced_is_kept(tmp_path):
    (tmp_path / "target").mkdir()
    with pytest.raises(FileNotFoundError):
        atomic.replace_folder(tmp_path / "missing", tmp_path / "target")
    assert [p.name for p in tmp_path.iterdir()] == ["target"]


KILLED = """
import os, sys; from pathlib import Path; from pipeline.io.atomic import replace_folder
calls = []
def counted(path, target, rename=Path.rename):
    calls.append(path)
    if len(calls) == int(sys.argv[2]):
        os._exit(9)
    rename(path, target)
Path.rename = counted
base = Path(sys.argv[1])
replace_folder(base / "new", base / "target")
"""


@pytest.mark.parametrize(("rename", "result"), [(1, "old"), (2, "old"), (3, "new")])
def test_kill_before_any_rename_keeps_the_old_or_the_new_folder(tmp_path, rename, result):
    for name, folder in (("old", "target"), ("new", "new")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).touch()
    command = [sys.executable, "-c", KILLED, str(tmp_path), str(rename)]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == (9 if result == "old" else 0)
    atomic.recover_folder(tmp_path / "target")
    assert [p.name for p in (tmp_path / "target").iterdir()] == [result]
    assert not list(tmp_path.glob(".*"))


SWAP = """
import sys; from pathlib import Path; from pipeline.io.atomic import replace_folder
base = Path(sys.argv[1])
for i in range(10**9):
    (base / f"new{i}").mkdir(); (base / f"new{i}" / "content").write_text(str(i))
    replace_folder(base / f"new{i}", base / "target")
"""


def test_no_kill_loses_both_folders(tmp_path):
    for _ in range(5):
        process = subprocess.Popen([sys.executable, "-c", SWAP, str(tmp_path)], cwd=ROOT)
        while not (tmp_path / "target").exists():
            time.sleep(0.001)
        time.sleep(0.2)
        process.send_signal(signal.SIGKILL)
        process.wait()
        atomic.recover_folder(tmp_path / "target")
        assert (tmp_path / "target" / "content").read_text()
        for path in tmp_path.glob("new*"):
            for content in path.iterdir():
                content.unlink()
            path.rmdir()
