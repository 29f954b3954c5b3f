import hashlib
import signal
import socket
import subprocess
import sys
import time
from collections import namedtuple

import numpy as np
import pytest

from pipeline.dataset import download as d
from pipeline.errors import UserError
from pipeline.io import http
from tests.conftest import ROOT
from tests.pipeline.file_server import Answers, serving

pytestmark = pytest.mark.processes

NAME = "train_sequences.txt"
OTHER = "test_sequences.txt"
FILES = {name: np.random.default_rng(seed).bytes(1_500_000 + seed) for seed, name in enumerate((NAME, OTHER))}
BODY = FILES[NAME]
KNOWN = {name: d.KnownFile(len(body), hashlib.sha256(body).hexdigest()) for name, body in FILES.items()}


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture
def server():
    with serving(Answers(dict(FILES))) as answers:
        yield answers


@pytest.fixture
def out(tmp_path):
    return tmp_path / "data"


def fetch(server, out, *names, **arguments):
    return d.download(names or [NAME], out, server.url, known=KNOWN, **{"waits": (0.0, 0.0, 0.0), **arguments})


def leave(out, content, name=f"{NAME}.partial"):
    out.mkdir(exist_ok=True)
    (out / name).write_bytes(content)


def names_in(out):
    return sorted(path.name for path in out.iterdir())


def ranges(server):
    return [byte_range for _, byte_range in server.requests]


def test_download_without_names_fetches_both_files(server, out, capfd):
    shown = []
    results = d.download([], out, server.url, lambda *progress: shown.append(progress), KNOWN)
    assert names_in(out) == [OTHER, NAME]
    assert all((out / name).read_bytes() == body for name, body in FILES.items())
    assert results == [
        d.DownloadResult(str(out / name), len(FILES[name]), len(FILES[name]), False) for name in (NAME, OTHER)
    ]
    assert server.requests == [(f"/files/{NAME}?download=1", None), (f"/files/{OTHER}?download=1", None)]
    everything = sum(map(len, FILES.values()))
    assert shown[0] == (0, everything, NAME)
    assert shown[-1][:2] == (everything, everything)
    assert [done for done, _, _ in shown] == sorted(done for done, _, _ in shown)
    assert capfd.readouterr() == ("", "")


def test_existing_files_are_not_requested_again(server, out):
    fetch(server, out)
    server.requests.clear()
    leave(out, BODY[:10])  # whatever lies beside a whole file is of no use
    shown = []
    assert fetch(server, out, on_progress=lambda *progress: shown.append(progress)) == [
        d.DownloadResult(str(out / NAME), len(BODY), 0, True)
    ]
    assert server.requests == []
    assert shown == []
    assert names_in(out) == [NAME]


def test_interrupted_connections_are_resumed(server, out):
    server.cuts = [400_000, 300_000, 0, 500_000]
    notes = []
    [result] = fetch(server, out, on_progress=lambda _done, _all, note: notes.append(note))
    assert (out / NAME).read_bytes() == BODY
    assert names_in(out) == [NAME]
    starts = [int(byte_range.removeprefix("bytes=").removesuffix("-")) for byte_range in ranges(server)[1:]]
    assert len(starts) == 4
    assert starts == sorted(starts)
    assert 300_000 < starts[0] <= 400_000
    assert result.fetched == len(BODY)
    assert f"{NAME}: the connection was cut; retrying in 0 s" in notes


def test_truncated_body_is_kept_for_the_next_start(server, out):
    server.cuts = [400_000, *[0] * 20]
    with pytest.raises(UserError, match=r"cut; expected 1,500,000 bytes, got [\d,]+; .*resume"):
        fetch(server, out)
    assert len(server.requests) == 4  # the first, and one after each wait
    assert names_in(out) == [f"{NAME}.partial"]
    assert BODY.startswith((out / f"{NAME}.partial").read_bytes())
    server.cuts = []
    [result] = fetch(server, out)
    assert ranges(server)[-1].startswith("bytes=")
    assert 0 < result.fetched < len(BODY)
    assert (out / NAME).read_bytes() == BODY


def test_waits_grow_and_reset_after_progress(server, out, monkeypatch):
    slept = []
    monkeypatch.setattr(http.time, "sleep", lambda s: slept.append(s) if s >= 10 else None)
    server.cuts = [0, 0, 400_000, 0]
    fetch(server, out, waits=(10.0, 20.0, 30.0))
    assert slept == [10.0, 20.0, 10.0, 20.0]


def test_server_without_ranges_restarts_the_download(server, out):
    server.ranges = False
    server.cuts = [700_000, 300_000]
    [result] = fetch(server, out)
    assert [byte_range is not None for byte_range in ranges(server)] == [False, True, True]
    assert (out / NAME).read_bytes() == BODY
    assert result.fetched > len(BODY)
    assert names_in(out) == [NAME]


def test_response_with_another_range_restarts_the_download(server, out):
    leave(out, BODY[:500_000])
    server.shift = 7
    fetch(server, out)
    assert ranges(server) == ["bytes=500000-", None]
    assert (out / NAME).read_bytes() == BODY


def test_body_of_unknown_length_is_downloaded(server, out):
    server.says_length = False
    server.cuts = [400_000]
    fetch(server, out)
    assert (out / NAME).read_bytes() == BODY


def test_endless_body_is_read_to_the_known_size(server, out):
    server.says_length = False
    server.files[NAME] = BODY * 2
    [result] = fetch(server, out)
    assert result.fetched < len(BODY) + 100_000
    assert (out / NAME).read_bytes() == BODY


def test_busy_server_is_retried(server, out):
    server.statuses = [503, 429]
    fetch(server, out)
    assert len(server.requests) == 3
    assert (out / NAME).read_bytes() == BODY


def test_silent_server_is_retried(server, out, monkeypatch):
    monkeypatch.setattr(http, "SILENT_SECONDS", 0.2)
    server.stalls = [1.0]
    fetch(server, out)
    assert len(server.requests) == 2
    assert (out / NAME).read_bytes() == BODY


@pytest.mark.parametrize("size", [10, 700_000, len(BODY), len(BODY) + 10])
def test_partial_file_of_another_file_is_restarted(server, out, size):
    leave(out, bytes(size))
    fetch(server, out)
    assert ranges(server)[-1] is None
    assert len(server.requests) == (2 if size < len(BODY) else 1)
    assert (out / NAME).read_bytes() == BODY
    assert names_in(out) == [NAME]


def test_complete_partial_file_needs_no_request(server, out):
    leave(out, BODY)
    [result] = fetch(server, out)
    assert server.requests == []
    assert not result.existing
    assert names_in(out) == [NAME]


def test_download_with_a_wrong_hash_is_deleted(server, out):
    wrong = BODY[:-1] + bytes([BODY[-1] ^ 1])
    server.files[NAME] = wrong
    with pytest.raises(UserError, match="expected") as caught:
        fetch(server, out)
    assert KNOWN[NAME].sha256 in str(caught.value)
    assert hashlib.sha256(wrong).hexdigest() in str(caught.value)
    assert names_in(out) == []
    assert ranges(server) == [None]  # whole and wrong: no second 800 MB
    leave(out, BODY[:500_000])
    with pytest.raises(UserError, match="expected"):
        fetch(server, out)
    assert ranges(server) == [None, "bytes=500000-", None]
    assert names_in(out) == []


def test_parts_of_two_versions_are_restarted(server, out):
    def repair_server(_done, _all, note):
        if "retrying" in note:
            server.files[NAME] = BODY

    server.files[NAME] = bytes(len(BODY))
    server.cuts = [400_000]
    fetch(server, out, on_progress=repair_server)
    assert [byte_range is not None for byte_range in ranges(server)] == [False, True, False]
    assert (out / NAME).read_bytes() == BODY


@pytest.mark.parametrize("with_ranges", [True, False])
@pytest.mark.parametrize("size", [len(BODY) - 1, len(BODY) + 1, 300, 100])
def test_file_of_another_size_is_refused_and_the_partial_kept(server, out, size, with_ranges):
    leave(out, BODY[:200])
    server.ranges = with_ranges
    server.files[NAME] = (BODY + BODY)[:size]
    message = "416" if with_ranges and size < 200 else f"expected 1,500,000 bytes, got {size:,}"
    with pytest.raises(UserError, match=message):
        fetch(server, out)
    assert (out / f"{NAME}.partial").read_bytes() == BODY[:200]


def test_other_file_of_the_same_name_is_kept(server, out):
    leave(out, b"mine", NAME)
    with pytest.raises(UserError, match=r"another file; expected 1,500,000 bytes .* got 4 with"):
        fetch(server, out)
    assert server.requests == []
    assert (out / NAME).read_bytes() == b"mine"
    assert names_in(out) == [NAME]


def test_missing_url_is_an_error(server, out):
    del server.files[NAME]
    with pytest.raises(UserError, match="404 Not Found"):
        fetch(server, out)
    assert len(server.requests) == 1
    assert names_in(out) == []


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://127.0.0.1:{port}", "no connection to 127.0.0.1:.*: .Errno 111. Connection refused; fix"),
        ("https://zenodo.org", "no connection to zenodo.org: .*resolve.* no network.*; fix"),
        ("nowhere", "Invalid URL"),
        ("ftp://127.0.0.1", "No connection adapters"),
        ("http://[", "is not a valid host"),
    ],
)
def test_server_that_cannot_be_reached_is_an_error(out, monkeypatch, url, message):
    def resolve(host, *arguments, **more):
        if host == "127.0.0.1":
            return known_addresses(host, *arguments, **more)
        raise socket.gaierror(-2, "no network here")

    known_addresses = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = url.format(port=free.getsockname()[1])
    with pytest.raises(UserError, match=message):
        d.download([NAME], out, url, known=KNOWN)
    assert names_in(out) == []


def test_unknown_file_names_are_refused(server, out):
    with pytest.raises(UserError, match=r"val\.txt: .*train_sequences\.txt or test_sequences\.txt"):
        fetch(server, out, "val.txt")
    assert not out.exists()


def test_full_disk_is_refused_before_a_download(server, out, monkeypatch):
    leave(out, BODY[:500_000])
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(d.shutil, "disk_usage", lambda _: usage(999_999))
    with pytest.raises(UserError, match="expected 1,000,000 bytes free, got 999,999"):
        fetch(server, out)
    assert server.requests == []


def test_disk_that_fills_up_during_a_download_is_an_error(server, out):
    out.mkdir()
    (out / f"{NAME}.partial").symlink_to("/dev/full")
    with pytest.raises(UserError, match=r"No space left on device; .* are in .*\.partial"):
        fetch(server, out)
    assert names_in(out) == []  # not one byte fitted


def test_output_folder_that_is_a_file_is_refused(server, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file: File exists"):
        fetch(server, tmp_path / "file")


CHILD = """
import sys
from pathlib import Path
from pipeline.dataset.download import KnownFile, download

url, out, name, size, sha256 = sys.argv[1:]
download([name], Path(out), url, known={name: KnownFile(int(size), sha256)})
"""


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
def test_stopped_download_resumes(server, out, sent):
    server.chunk_seconds = 0.1
    known = KNOWN[NAME]
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, server.url, out, NAME, str(known.size), known.sha256],
        cwd=ROOT,
        stderr=subprocess.PIPE,
    )
    partial = out / f"{NAME}.partial"
    until = time.monotonic() + 20
    while not (partial.exists() and partial.stat().st_size > 300_000):
        assert time.monotonic() < until
        assert child.poll() is None
        time.sleep(0.02)
    with pytest.raises(UserError, match="another process is downloading"):
        fetch(server, out)
    child.send_signal(sent)
    child.communicate()
    assert child.returncode == -sent
    assert names_in(out) == [partial.name]
    have = partial.stat().st_size
    assert 300_000 < have < len(BODY)
    server.chunk_seconds = 0
    [result] = fetch(server, out)
    assert ranges(server) == [None, f"bytes={have}-"]
    assert result.fetched == len(BODY) - have
    assert (out / NAME).read_bytes() == BODY
    assert names_in(out) == [NAME]


def test_module_imports_no_heavy_packages():
    code = "import sys, pipeline.dataset.download; sys.exit(', '.join({'requests'} & set(sys.modules)) or 0)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_the_challenges_files():
    assert {name: known.size for name, known in d.CHALLENGE_FILES.items()} == {NAME: 805_369_640, OTHER: 8_176_845}
    assert d.CHALLENGE_FILES[NAME].sha256.startswith("dfd548e9")
    assert d.CHALLENGE_FILES[OTHER].sha256.endswith("b47a583f")
