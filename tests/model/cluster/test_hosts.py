import base64
import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.cli.app import main
from model.cluster.cleanup import MARK, marked, sweep
from model.cluster.doctor import Asked, examine
from model.cluster.hosts import check_environment_files, read_hostfile
from model.cluster.relaunch import INTERRUPTED, USERS_ERROR, relaunch, target_of
from model.distributed.network import address_towards, choose_interface, interface_of
from model.runs.fingerprint import differences, explained
from pipeline.errors import UserError
from tests.conftest import ROOT

LINES = st.lists(
    st.one_of(
        st.from_regex(r"[a-z0-9.-]{1,8}[ \t]{1,3}slots=[0-9]{1,3}( #.*)?", fullmatch=True),
        st.sampled_from(["", "  ", "# a comment", "  # another", "host", "host slots", "host slots=", "a slots=2"]),
    ),
    max_size=6,
)


@settings(deadline=None)  # the first import of DeepSpeed takes seconds
@given(LINES)
def test_a_hostfile_is_read_as_deepspeed_reads_it(tmp_path_factory, lines):
    from deepspeed.launcher.runner import _parse_hostfile

    path = tmp_path_factory.mktemp("hostfile") / "hostfile"
    path.write_text("".join(f"{line}\n" for line in lines))
    try:
        with path.open() as file:
            expected = list(_parse_hostfile(file.readlines()).items())
    except ValueError:
        expected = None
    try:
        got = [(host.name, host.slots) for host in read_hostfile(path)]
    except UserError:
        got = None
    assert got == expected


def test_the_hosts_of_a_command(tmp_path):
    path = tmp_path / "hostfile"
    path.write_text("a slots=2\nb slots=2\nc slots=2\n")

    def hosts(*words):
        return target_of(["deepspeed", *words, "train.py", "--include", "nonsense"]).hosts

    assert hosts("--hostfile", str(path)) == ["a", "b", "c"]
    assert hosts(f"--hostfile={path}", "--include", "a:1@c") == ["a", "c"]
    assert hosts("-H", str(path), "--exclude", "a@b:0") == ["b", "c"]
    assert hosts("--hostfile", str(path), "--include", "b") == []  # DeepSpeed starts a single host's without ssh
    assert hosts("--num_accelerators", "2") == []
    assert target_of(["deepspeed", "--ssh_port", "2222", "-H", str(path), "train.py"]).ssh_port == 2222
    assert target_of(["torchrun", "--hostfile", str(path), "train.py"]).hosts == []


@pytest.mark.parametrize("line", ["", "# comment", "NAME"])
def test_what_deepspeed_stumbles_on_in_its_environment_file(tmp_path, monkeypatch, line):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".deepspeed_env").write_text("A=1\nB=2 3\n")
    assert check_environment_files() == [str(tmp_path / ".deepspeed_env")]
    (tmp_path / ".deepspeed_env").write_text(f"A=1\n{line}\nB=2\n")
    with pytest.raises(UserError, match=r"\.deepspeed_env, line 2: expected NAME=VALUE"):
        check_environment_files()


def test_the_interface_is_that_of_the_way_to_the_first_host(monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "localhost")  # a name that points to loopback
    outside = address_towards("192.0.2.1")
    environment = {"WORLD_SIZE": "2", "LOCAL_SIZE": "1", "MASTER_ADDR": "192.0.2.1"}
    choose_interface(environment)
    assert environment["GLOO_SOCKET_IFNAME"] == interface_of(outside) != "lo"
    for untouched in (
        {**environment, "GLOO_SOCKET_IFNAME": "mine"},
        {"WORLD_SIZE": "2", "LOCAL_SIZE": "2", "MASTER_ADDR": "127.0.0.1"},
        {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"},
    ):
        before = dict(untouched)
        choose_interface(untouched)
        assert untouched == before
    with pytest.raises(UserError, match="other hosts cannot reach it there"):
        choose_interface({"WORLD_SIZE": "2", "LOCAL_SIZE": "1", "MASTER_ADDR": "127.0.1.1"})


def test_each_difference_is_said_once_whatever_the_number_of_ranks():
    def facts(torch, key):
        return {"shards": {"shard key": key}, "config": {}, "software": {"torch": torch}}

    same, other = ("host1", facts("2.13", "a")), ("host2", facts("2.12", "a"))
    assert differences([same, same]) == []
    (only,) = differences([same, same, other, other])
    assert str(only) == "torch: 2.13 on host1, but 2.12 on host2"
    assert explained([only]).startswith("the hosts do not agree:\n  torch: 2.13 on host1")


def test_the_words_that_a_run_ends_with():
    assert USERS_ERROR.match("error: no shards")
    assert USERS_ERROR.match("host1: error: no shards")
    assert USERS_ERROR.match("train.py: error: expected key=value")
    assert not USERS_ERROR.match("host1: lost: rank 1 on host2: RuntimeError: error: no")
    assert INTERRUPTED.match("host1: interrupted; the same command")
    assert INTERRUPTED.match("host1: stopped    pretrain after step 8; the same command goes on from there")
    assert not INTERRUPTED.match("pdsh@host1: interrupt (one more within 1 sec to abort)")


STARTS = """
import os, signal, subprocess, sys
late = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"], env=os.environ | {"RANK": "1"})
late.send_signal(signal.SIGSTOP)
script = "from model.distributed import process_group as d, rendezvous as m; m.JOIN = 2; d.start()"
first = subprocess.run([sys.executable, "-c", script], env=os.environ | {"RANK": "0"})
print(first.returncode, late.wait())
"""


def test_a_rank_that_never_comes_is_named_and_not_waited_for_long():
    """Frozen before it has a guard: only the others can tell. Its host stands on the launcher's command line."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    places = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "LOCAL_SIZE": "2"}
    slots = base64.urlsafe_b64encode(json.dumps({"here": [0], "there": [0]}).encode()).decode()
    done = subprocess.run(
        [sys.executable, "-c", STARTS, "deepspeed.launcher.launch", f"--world_info={slots}"], cwd=ROOT,
        env={**os.environ, **places}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.stdout.split() == ["1", str(-signal.SIGKILL)], done.stderr
    assert "lost: rank 1 on there: not there after 2 s" in done.stderr
    assert f"at 127.0.0.1:{port}" in done.stderr
    assert "Traceback" not in done.stderr


def test_when_one_host_has_failed_the_others_are_not_waited_for_long(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("model.cluster.relaunch.OTHERS_END", 0.5)
    said = []
    script = "import time; print('pdsh@a: b: ssh exited with exit code 1', flush=True); time.sleep(60)"
    code = relaunch([sys.executable, "-c", script], 0, said.append)
    assert code == 128 + signal.SIGTERM
    assert "restarts are used up" in said[-1]


FAILS = """
import pathlib, sys
tries = pathlib.Path("tries"); n = int(tries.read_text()) if tries.exists() else 0; tries.write_text(str(n + 1))
print(f"try {n}", flush=True)
if n < int(sys.argv[1]): sys.exit(sys.argv[2] if len(sys.argv) > 2 else 3)
"""


def restarts(tmp_path, monkeypatch, capsys, *arguments, max_restarts=2):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("model.cluster.relaunch.FIRST_WAIT", 0.01)
    said = []
    code = relaunch([sys.executable, "-c", FAILS, *arguments], max_restarts, said.append)
    return code, capsys.readouterr().out.count("try"), said


def test_a_run_is_started_again_until_it_is_finished(tmp_path, monkeypatch, capsys):
    code, tries, said = restarts(tmp_path, monkeypatch, capsys, "2")
    assert (code, tries) == (0, 3)
    assert "ended with exit code 3" in said[0]


def test_deepspeeds_exit_code_0_is_no_proof(tmp_path, monkeypatch):
    """It answers so when its launcher is killed; train.py's last words are the proof."""
    monkeypatch.setattr("model.cluster.relaunch.FIRST_WAIT", 0.01)
    (tmp_path / "deepspeed").write_text(f"#!{sys.executable}\nprint('directory  runs/paper' if {{}} else 'up')\n")
    (tmp_path / "deepspeed").chmod(0o755)
    script = (tmp_path / "deepspeed").read_text()
    for finished, restarts in ((True, 0), (False, 2)):
        (tmp_path / "deepspeed").write_text(script.format(finished))
        said: list[str] = []
        assert relaunch([str(tmp_path / "deepspeed"), "train.py"], 2, said.append) == (0 if finished else 1)
        assert len([line for line in said if "ended before it was finished after" in line]) == restarts


def test_restarts_are_used_up(tmp_path, monkeypatch, capsys):
    code, tries, said = restarts(tmp_path, monkeypatch, capsys, "9")
    assert (code, tries) == (3, 3)
    assert "2 restarts are used up" in said[-1]


def test_a_users_error_is_not_tried_again(tmp_path, monkeypatch, capsys):
    code, tries, said = restarts(tmp_path, monkeypatch, capsys, "9", "error: no shards here")
    assert (code, tries) == (1, 1)
    assert "must be mended first" in said[-1]


def test_asked_to_end_it_ends_the_run_and_starts_it_no_more(tmp_path):
    script = "import time; print('up', flush=True); time.sleep(60)"
    command = [sys.executable, "-m", "model.cli", "relaunch", sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as loop:
        assert loop.stdout.readline() == b"up\n"
        loop.send_signal(signal.SIGTERM)
        out, _ = loop.communicate(timeout=30)
    assert out == b""
    assert loop.returncode == 128 + signal.SIGTERM


def test_only_the_processes_of_one_launch_are_ended():
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    mine, other = (subprocess.Popen(sleep, env={**os.environ, MARK: mark}) for mark in ("mine", "other"))
    try:
        deadline = time.monotonic() + 10
        while [process.pid for process in marked("mine")] != [mine.pid]:
            assert time.monotonic() < deadline
        (line,) = sweep("mine", 0)
        assert "time.sleep" in line
        assert mine.wait(10) is not None
        assert sweep("mine", 0) == []
        assert other.poll() is None
    finally:
        for process in (mine, other):
            process.kill()
            process.wait()


def test_the_doctor_looks_at_this_machine_alone(made, tmp_path, capsys):
    places = {"dataset.path": made.config.dataset.path, "shards.path": made.config.shards.path, "assay.flank": 5}
    places |= {"shards.record_promoters": 100, "shards.shard_megabytes": 0.05, "run.path": str(tmp_path / "runs")}
    overrides = [f"{name}={json.dumps(value)}" for name, value in places.items()]
    asked = Asked(made.config, ROOT / "config.yaml", overrides, ROOT / "ds_config.json", 29511, None)
    findings = {finding.check: finding for finding in examine(None, asked, lambda _: None)}
    assert findings.pop("disk").state != "wrong"
    assert {name: finding.state for name, finding in findings.items()} == dict.fromkeys(
        ("project", "clock", "pkill", "port", "shards", "GPUs"), "ok"
    )


def test_the_doctor_says_which_deepspeed_config_it_cannot_read(capsys):
    with pytest.raises(SystemExit) as end:
        main(["doctor", "--deepspeed_config", "none.json"])
    assert end.value.code == 1
    assert "none.json: cannot read DeepSpeed's config: No such file" in capsys.readouterr().err
