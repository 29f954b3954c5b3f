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


def fetch(server, out, *names, **given):
    return d.download(names or [NAME], out, server.url, known=KNOWN, **{"waits": (0.0, 0.0, 0.0), **given})


def leave(out, content, name=f"{NAME}.partial"):
    out.mkdir(exist_ok=True)
    (out / name).write_bytes(content)


def names_in(out):
    return sorted(path.name for path in out.iterdir())


def ranges(server):
    return [asked for _, asked in server.requests]


def test_both_files_and_nothing_else(server, out, capfd):
    shown = []
    found = d.download([], out, server.url, lambda *told: shown.append(told), KNOWN)
    assert names_in(out) == [OTHER, NAME]
    assert all((out / name).read_bytes() == body for name, body in FILES.items())
    assert found == [
        d.DownloadResult(str(out / name), len(FILES[name]), len(FILES[name]), False) for name in (NAME, OTHER)
    ]
    assert server.requests == [(f"/files/{NAME}?download=1", None), (f"/files/{OTHER}?download=1", None)]
    everything = sum(map(len, FILES.values()))
    assert shown[0] == (0, everything, NAME)
    assert shown[-1][:2] == (everything, everything)
    assert [done for done, _, _ in shown] == sorted(done for done, _, _ in shown)
    assert capfd.readouterr() == ("", "")


def test_what_is_there_is_not_asked_for_again(server, out):
    fetch(server, out)
    server.requests.clear()
    leave(out, BODY[:10])  # whatever lies beside a whole file is of no use
    shown = []
    assert fetch(server, out, on_progress=lambda *told: shown.append(told)) == [
        d.DownloadResult(str(out / NAME), len(BODY), 0, True)
    ]
    assert server.requests == []
    assert shown == []
    assert names_in(out) == [NAME]


def test_cut_connections_are_continued(server, out):
    server.cuts = [400_000, 300_000, 0, 500_000]
    notes = []
    [found] = fetch(server, out, on_progress=lambda _done, _all, note: notes.append(note))
    assert (out / NAME).read_bytes() == BODY
    assert names_in(out) == [NAME]
    starts = [int(asked.removeprefix("bytes=").removesuffix("-")) for asked in ranges(server)[1:]]
    assert len(starts) == 4
    assert starts == sorted(starts)
    assert 300_000 < starts[0] <= 400_000
    assert found.fetched == len(BODY)
    assert f"{NAME}: the connection was cut; retrying in 0 s" in notes


def test_a_body_shorter_than_announced_without_end_stays_for_the_next_start(server, out):
    server.cuts = [400_000, *[0] * 20]
    with pytest.raises(UserError, match=r"cut; expected 1,500,000 bytes, got [\d,]+; .*resume"):
        fetch(server, out)
    assert len(server.requests) == 4  # the first, and one after each wait
    assert names_in(out) == [f"{NAME}.partial"]
    assert BODY.startswith((out / f"{NAME}.partial").read_bytes())
    server.cuts = []
    [found] = fetch(server, out)
    assert ranges(server)[-1].startswith("bytes=")
    assert 0 < found.fetched < len(BODY)
    assert (out / NAME).read_bytes() == BODY


def test_waits_grow_and_start_anew_after_progress(server, out, monkeypatch):
    slept = []
    monkeypatch.setattr(http.time, "sleep", lambda s: slept.append(s) if s >= 10 else None)
    server.cuts = [0, 0, 400_000, 0]
    fetch(server, out, waits=(10.0, 20.0, 30.0))
    assert slept == [10.0, 20.0, 10.0, 20.0]


def test_a_server_without_ranges_starts_over(server, out):
    server.ranges = False
    server.cuts = [700_000, 300_000]
    [found] = fetch(server, out)
    assert [asked is not None for asked in ranges(server)] == [False, True, True]
    assert (out / NAME).read_bytes() == BODY
    assert found.fetched > len(BODY)
    assert names_in(out) == [NAME]


def test_a_server_that_sends_another_range_starts_over(server, out):
    leave(out, BODY[:500_000])
    server.shift = 7
    fetch(server, out)
    assert ranges(server) == ["bytes=500000-", None]
    assert (out / NAME).read_bytes() == BODY


def test_a_body_of_unknown_length(server, out):
    server.says_length = False
    server.cuts = [400_000]
    fetch(server, out)
    assert (out / NAME).read_bytes() == BODY


def test_a_body_that_does_not_end_is_read_to_the_known_size(server, out):
    server.says_length = False
    server.files[NAME] = BODY * 2
    [found] = fetch(server, out)
    assert found.fetched < len(BODY) + 100_000
    assert (out / NAME).read_bytes() == BODY


def test_a_busy_server_is_asked_again(server, out):
    server.statuses = [503, 429]
    fetch(server, out)
    assert len(server.requests) == 3
    assert (out / NAME).read_bytes() == BODY


def test_a_silent_server_is_asked_again(server, out, monkeypatch):
    monkeypatch.setattr(http, "SILENT_SECONDS", 0.2)
    server.stalls = [1.0]
    fetch(server, out)
    assert len(server.requests) == 2
    assert (out / NAME).read_bytes() == BODY


@pytest.mark.parametrize("size", [10, 700_000, len(BODY), len(BODY) + 10])
def test_a_partial_file_of_something_else_is_begun_anew(server, out, size):
    leave(out, bytes(size))
    fetch(server, out)
    assert ranges(server)[-1] is None
    assert len(server.requests) == (2 if size < len(BODY) else 1)
    assert (out / NAME).read_bytes() == BODY
    assert names_in(out) == [NAME]


def test_a_whole_partial_file_needs_no_request(server, out):
    leave(out, BODY)
    [found] = fetch(server, out)
    assert server.requests == []
    assert not found.existing
    assert names_in(out) == [NAME]


def test_wrong_bytes_are_refused_and_removed(server, out):
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


def test_pieces_of_two_versions_are_begun_anew(server, out):
    def repair_server(_done, _all, note):
        if "retrying" in note:
            server.files[NAME] = BODY

    server.files[NAME] = bytes(len(BODY))
    server.cuts = [400_000]
    fetch(server, out, on_progress=repair_server)
    assert [asked is not None for asked in ranges(server)] == [False, True, False]
    assert (out / NAME).read_bytes() == BODY


@pytest.mark.parametrize("with_ranges", [True, False])
@pytest.mark.parametrize("size", [len(BODY) - 1, len(BODY) + 1, 300, 100])
def test_a_file_of_another_size_is_refused_before_anything_is_thrown_away(server, out, size, with_ranges):
    leave(out, BODY[:200])
    server.ranges = with_ranges
    server.files[NAME] = (BODY + BODY)[:size]
    said = "416" if with_ranges and size < 200 else f"expected 1,500,000 bytes, got {size:,}"
    with pytest.raises(UserError, match=said):
        fetch(server, out)
    assert (out / f"{NAME}.partial").read_bytes() == BODY[:200]


def test_another_file_of_that_name_is_left_alone(server, out):
    leave(out, b"mine", NAME)
    with pytest.raises(UserError, match=r"another file; expected 1,500,000 bytes .* got 4 with"):
        fetch(server, out)
    assert server.requests == []
    assert (out / NAME).read_bytes() == b"mine"
    assert names_in(out) == [NAME]


def test_not_found(server, out):
    del server.files[NAME]
    with pytest.raises(UserError, match="404 Not Found"):
        fetch(server, out)
    assert len(server.requests) == 1
    assert names_in(out) == []


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://127.0.0.1:{port}", "no connection to 127.0.0.1:.*: .Errno 111. Connection refused; fix"),
        ("https://zenodo.org", "no connection to zenodo.org: .*resolve.* no network.*; fix"),
        ("nowhere", "Invalid URL"),
        ("ftp://127.0.0.1", "No connection adapters"),
        ("http://[", "is not a valid host"),
    ],
)
def test_no_server(out, monkeypatch, url, said):
    def resolve(host, *given, **more):
        if host == "127.0.0.1":
            return known_addresses(host, *given, **more)
        raise socket.gaierror(-2, "no network here")

    known_addresses = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = url.format(port=free.getsockname()[1])
    with pytest.raises(UserError, match=said):
        d.download([NAME], out, url, known=KNOWN)
    assert names_in(out) == []


def test_unknown_names(server, out):
    with pytest.raises(UserError, match=r"val\.txt: .*train_sequences\.txt or test_sequences\.txt"):
        fetch(server, out, "val.txt")
    assert not out.exists()


def test_a_disk_that_is_full_before(server, out, monkeypatch):
    leave(out, BODY[:500_000])
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(d.shutil, "disk_usage", lambda _: usage(999_999))
    with pytest.raises(UserError, match="expected 1,000,000 bytes free, got 999,999"):
        fetch(server, out)
    assert server.requests == []


def test_a_disk_that_fills_up(server, out):
    out.mkdir()
    (out / f"{NAME}.partial").symlink_to("/dev/full")
    with pytest.raises(UserError, match=r"No space left on device; .* are in .*\.partial"):
        fetch(server, out)
    assert names_in(out) == []  # not one byte fitted


def test_a_folder_that_is_a_file(server, tmp_path):
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
def test_a_stopped_download_goes_on_where_it_was(server, out, sent):
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
    [found] = fetch(server, out)
    assert ranges(server) == [None, f"bytes={have}-"]
    assert found.fetched == len(BODY) - have
    assert (out / NAME).read_bytes() == BODY
    assert names_in(out) == [NAME]


def test_the_module_is_light():
    code = "import sys, pipeline.dataset.download; sys.exit(', '.join({'requests'} & set(sys.modules)) or 0)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_the_challenges_files():
    assert {name: known.size for name, known in d.CHALLENGE_FILES.items()} == {NAME: 805_369_640, OTHER: 8_176_845}
    assert d.CHALLENGE_FILES[NAME].sha256.startswith("dfd548e9")
    assert d.CHALLENGE_FILES[OTHER].sha256.endswith("b47a583f")
