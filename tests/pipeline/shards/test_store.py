"""Stores: an S3 bucket of a real local server, full and read-only disks, kills and interrupts."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest

from pipeline.dataset.build import build_dataset
from pipeline.dataset.database import dataset_info, open_dataset, rows_of
from pipeline.dataset.synthetic.generate import generate
from pipeline.errors import UserError
from pipeline.shards.index import read_index
from pipeline.shards.location import shard_folder, shard_location
from pipeline.shards.plan import select_splits
from pipeline.shards.preview import peek
from pipeline.shards.staleness import adopt_compression, check_fresh
from pipeline.shards.store import FolderStore, RemoteStore
from pipeline.shards.verify import verify_shards
from pipeline.shards.write import write_shards
from tests.conftest import SMALL, small_config
from tests.pipeline.shards.shard_files import hashes, with_shards_in

pytestmark = pytest.mark.processes


def download(url, folder):
    """Download the files of a bucket to a folder."""
    files = fsspec.filesystem("s3", skip_instance_cache=True)
    files.get(url.removeprefix("s3://"), str(folder), recursive=True)
    return folder


def objects(url):
    return sorted(fsspec.filesystem("s3", skip_instance_cache=True).find(url))


def test_bucket_has_the_same_bytes_as_a_folder(made, tmp_path, s3):
    config = with_shards_in(made.config, s3, "shards.workers=2")
    assert write_shards(config).written > 5
    assert hashes(download(f"{s3}/k3", tmp_path / "k3")) == hashes(made.shards)
    assert write_shards(config).written == 0
    result = verify_shards(f"{s3}/k3")
    assert result.rows == verify_shards(made.shards).rows
    from_folder = read_index(made.shards)
    assert peek(f"{s3}/k3", read_index(f"{s3}/k3")) == peek(made.shards, from_folder)


def test_bucket_resumes_after_a_kill(made, tmp_path, s3):
    """kill -9 during the run; no index exists, and the next run writes the missing shards."""
    config = with_shards_in(made.config, s3)
    command = [
        sys.executable, "-m", "model.cli", "shards", *SMALL, "shards.workers=1",
        f"dataset.path={config.dataset.path}", f"shards.path={s3}",
    ]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    while len(objects(s3)) < 9 and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    process.wait()
    before = objects(s3)
    assert f"{s3.removeprefix('s3://')}/k3/index.json" not in before
    written = write_shards(config)
    assert 0 < written.written < written.shards
    assert hashes(download(f"{s3}/k3", tmp_path / "k3")) == hashes(made.shards)
    assert not [name for name in objects(s3) if ".partial" in name]


def test_bucket_with_stale_and_missing_shards(made, tmp_path, s3):
    write_shards(with_shards_in(made.config, s3, "assay.flank=6"))
    config = with_shards_in(made.config, s3)
    assert write_shards(config).replaced == ["assay.flank: 6 -> 5"]
    assert hashes(download(f"{s3}/k3", tmp_path / "k3")) == hashes(made.shards)
    lost = f"{s3}/k3/finetune/train-000001.tar"
    fsspec.filesystem("s3").rm_file(lost)
    with pytest.raises(UserError, match=r"train-000001\.tar: no such file"):
        verify_shards(f"{s3}/k3")
    assert write_shards(config).written == 1
    assert hashes(download(f"{s3}/k3", tmp_path / "again")) == hashes(made.shards)


def test_two_runs_write_to_one_bucket(made, s3):
    """Of two runs that write different shards to one URL, the one that finds notes of the other stops."""
    config = with_shards_in(made.config, s3)
    other = RemoteStore(shard_location(config), "0" * 64)
    entry = read_index(made.shards).shards[0]

    def meanwhile(done, _total, _size):
        if done:
            with other.new_shard(entry.file) as path:
                path.write_bytes(b"another shard")
            other.note_finished(replace(entry, bytes=len(b"another shard")))

    with pytest.raises(UserError, match="another run writes other shards there"):
        write_shards(config, on_progress=meanwhile)
    assert not [name for name in objects(s3) if name.endswith("index.json")]
    write_shards(config)
    assert verify_shards(shard_location(config)).shards > 5


def test_missing_bucket(made, s3):
    with pytest.raises(UserError, match=r"s3://nowhere/k3.*cannot"):
        write_shards(with_shards_in(made.config, "s3://nowhere"))
    with pytest.raises(UserError, match="no-such-system"):
        write_shards(with_shards_in(made.config, "no-such-system://bucket"))


def test_splits_written_separately_give_the_same_shards(made, tmp_path):
    config = with_shards_in(made.config, tmp_path)
    first = write_shards(config, select_splits("finetune", "test"))
    assert set(read_index(shard_folder(config)).splits) == {"finetune/test"}
    verify_shards(shard_folder(config))
    second = write_shards(config, select_splits(None, "valid"))
    assert set(read_index(shard_folder(config)).splits) == {"pretrain/valid", "finetune/valid", "finetune/test"}
    third = write_shards(config)
    assert first.written + second.written + third.written == third.shards
    assert hashes(shard_folder(config)) == hashes(made.shards)
    assert write_shards(config, select_splits("pretrain")).written == 0
    with pytest.raises(UserError, match=r"no split pretrain/test; expected one of pretrain/train"):
        select_splits("pretrain", "test")


def test_missing_splits_are_named(made, tmp_path):
    config = with_shards_in(made.config, tmp_path)
    write_shards(config, select_splits("finetune", "test"))
    with open_dataset(config.dataset.path) as connection:
        info = dataset_info(connection)
    with pytest.raises(
        UserError, match="pretrain/train, pretrain/valid, finetune/train, finetune/valid are not written"
    ):
        check_fresh(read_index(shard_folder(config)), config, info)


def test_corrupt_finished_shard_is_written_again(made, tmp_path):
    """After a kill, a shard has a note, but other bytes than the note describes."""
    config = with_shards_in(made.config, tmp_path)
    index = read_index(made.shards)
    store = FolderStore(shard_folder(config), index.key)
    first, second, *_ = index.splits["finetune/train"]
    for entry in (first, second):
        with store.new_shard(entry.file) as path:
            shutil.copyfile(made.shards / entry.file, path)
        store.note_finished(entry)
    data = bytearray((store.work / second.file).read_bytes())
    data[-5000] ^= 1
    (store.work / second.file).write_bytes(data)
    assert write_shards(config).written == len(index.shards) - 1
    assert hashes(shard_folder(config)) == hashes(made.shards)


OTHER_ORDER = ("shards.record_promoters=50", "shards.shard_megabytes=1")


def test_zstd_has_another_key_and_the_same_rows(made, tmp_path):
    config = with_shards_in(made.config, tmp_path, "shards.compression=zstd")
    write_shards(config)
    assert read_index(shard_folder(config)).key != read_index(made.shards).key
    verify_shards(shard_folder(config))
    plain, compressed = read_index(made.shards), read_index(shard_folder(config))
    everything = 10**6
    for split in plain.splits:
        from_folder = peek(made.shards, plain, split, everything)
        assert peek(shard_folder(config), compressed, split, everything) == from_folder
    assert sum(s.bytes for s in compressed.shards) < 0.8 * sum(s.bytes for s in plain.shards)
    with open_dataset(config.dataset.path) as connection:
        info = dataset_info(connection)
    without_compression = with_shards_in(made.config, tmp_path)  # training reads them for any setting of compression
    check_fresh(compressed, without_compression, info)
    assert adopt_compression(without_compression, compressed).shards == config.shards
    with pytest.raises(
        UserError, match=r"stale \(shards.record_promoters: 100 -> 50; shards.shard_megabytes: 0.05 -> 1"
    ):
        check_fresh(compressed, with_shards_in(made.config, tmp_path, *OTHER_ORDER), info)
    again = with_shards_in(made.config, tmp_path / "again", "shards.compression=zstd", "shards.workers=3")
    write_shards(again)
    assert hashes(shard_folder(again)) == hashes(shard_folder(config))


def test_second_ctrl_c_stops_immediately(made, tmp_path):
    command = [
        sys.executable, "-m", "model.cli", "shards", *SMALL, "shards.workers=2", "shards.record_promoters=5",
        "shards.shard_megabytes=0.001", f"dataset.path={made.config.dataset.path}", f"shards.path={tmp_path}",
    ]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
    while not list(tmp_path.glob(".k3.*/*/*.json")):
        time.sleep(0.001)
    os.killpg(process.pid, signal.SIGINT)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=30) != 0


@contextmanager
def mounted(folder, *options):
    """Mount a small file system at a folder."""
    folder.mkdir(exist_ok=True)
    done = subprocess.run(["mount", *options, folder], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.parametrize("workers", [1, 2])
def test_full_disk(made, tmp_path, workers):
    config = with_shards_in(made.config, tmp_path / "small", f"shards.workers={workers}")
    with mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=60k", "tmpfs"):
        with pytest.raises(UserError, match="cannot write: No space left on device"):
            write_shards(config)
        assert not shard_folder(config).exists()
        subprocess.run(["mount", "-o", "remount,size=4m", tmp_path / "small"], check=True)
        written = write_shards(config)
        assert 0 < written.written < written.shards
        assert hashes(shard_folder(config)) == hashes(made.shards)


def test_read_only_folder(made, tmp_path):
    config = with_shards_in(made.config, tmp_path / "fixed")
    with (
        mounted(tmp_path / "fixed", "-t", "tmpfs", "-o", "ro", "tmpfs"),
        pytest.raises(UserError, match=r"fixed.*cannot write: Read-only file system"),
    ):
        write_shards(config)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"Not a directory|File exists"):
        write_shards(with_shards_in(made.config, tmp_path / "file"))


def test_foreign_files_are_kept(made, tmp_path, s3):
    """A folder with another file is rejected before anything is written; in a bucket such a file is kept."""
    config = with_shards_in(made.config, tmp_path)
    shard_folder(config).mkdir()
    (shard_folder(config) / "notes.txt").write_text("precious")
    with pytest.raises(UserError, match=r"k3: contains notes\.txt"):
        write_shards(config)
    assert (shard_folder(config) / "notes.txt").read_text() == "precious"
    (shard_folder(config) / "notes.txt").unlink()
    shard_folder(config).rmdir()
    shard_folder(config).write_text("precious")
    with pytest.raises(UserError, match="k3: is a file"):
        write_shards(config)
    assert shard_folder(config).read_text() == "precious"

    with fsspec.open(f"{s3}/k3/notes.txt", "w") as file:
        file.write("precious")
    write_shards(with_shards_in(made.config, s3))
    assert [name for name in objects(s3) if name.endswith("notes.txt")]


def test_symlinks_urls_and_trailing_slashes(made, tmp_path, s3):
    """k3 may be a symlink to another disk, file:// is a folder, and a trailing slash changes nothing."""
    (tmp_path / "large").mkdir()
    (tmp_path / "k3").symlink_to(tmp_path / "large")
    write_shards(with_shards_in(made.config, tmp_path))
    assert (tmp_path / "k3").is_symlink()
    assert hashes(tmp_path / "large") == hashes(made.shards)
    assert write_shards(with_shards_in(made.config, f"file://{tmp_path}/url/")).folder == f"{tmp_path}/url/k3"
    assert hashes(tmp_path / "url/k3") == hashes(made.shards)
    write_shards(with_shards_in(made.config, f"{s3}/"))
    assert verify_shards(f"{s3}/k3/").rows == read_index(f"{s3}/k3/").rows("finetune/train") + sum(
        read_index(made.shards).rows(split) for split in read_index(made.shards).splits if split != "finetune/train"
    )
    with pytest.raises(UserError, match="ends with this process"):
        write_shards(with_shards_in(made.config, "memory://shards"))


def test_shards_are_valid_while_another_process_reads_the_dataset(tmp_path, monkeypatch):
    """While another process has the dataset open, shards are written; the next run updates the relations."""
    generate(tmp_path / "rows.tsv", 300, seed=3)
    config = small_config(tmp_path)
    build_dataset([str(tmp_path / "rows.tsv")], config)
    monkeypatch.setattr("pipeline.dataset.database.LOCK_TIMEOUT_S", 0.3)
    code = "import duckdb, sys; c = duckdb.connect(sys.argv[1], read_only=True); print('open', flush=True); input()"
    reader = subprocess.Popen(
        [sys.executable, "-c", code, config.dataset.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    reader.stdout.readline()
    written = write_shards(config)
    assert "relations `shards` and `records` are not up to date" in written.note
    verify_shards(shard_folder(config))
    reader.kill()
    reader.wait()
    again = write_shards(config)
    assert (again.written, again.note) == (0, "")
    with open_dataset(config.dataset.path) as connection:
        assert rows_of(connection, "select count(*) from shards") == [(again.shards,)]


def test_killed_writer_process(made, tmp_path):
    """Only its current shard is lost: the run ends with a message, and the next run resumes."""
    many = "shards.record_promoters=10", "shards.shard_megabytes=0.002"
    config = with_shards_in(made.config, tmp_path, "shards.workers=2", *many)
    victims = []

    def shoot_one(done, _total, _size):
        if done and not victims:
            children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
            writers = [pid for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
            victims.append(int(writers[0]))
            os.kill(victims[0], signal.SIGKILL)

    with pytest.raises(UserError, match=r"a writer process was killed.*resume from the finished shards"):
        write_shards(config, on_progress=shoot_one)
    assert not shard_folder(config).exists()
    written = write_shards(config)
    assert written.written < written.shards
    whole = with_shards_in(made.config, tmp_path / "whole", *many)
    write_shards(whole)
    assert hashes(shard_folder(config)) == hashes(shard_folder(whole))


def test_ctrl_c_stops_without_traceback_and_resumes(made, tmp_path):
    command = [
        sys.executable, "-m", "model.cli", "shards", *SMALL, "shards.workers=2", "shards.record_promoters=10",
        "shards.shard_megabytes=0.002", f"dataset.path={made.config.dataset.path}", f"shards.path={tmp_path}",
    ]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while not list(tmp_path.glob(".k3.*/*/*.json")):
        time.sleep(0.001)
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode not in (0, None)
    assert "Traceback" not in stderr, stderr
    finished = len(list(tmp_path.glob(".k3.*/*/*.json")))
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True)
    result = json.loads(done.stdout)
    assert result["shards"] - result["written"] == finished > 0
    verify_shards(tmp_path / "k3")


def test_invalid_index_is_rejected_and_replaced(made, tmp_path):
    config = with_shards_in(made.config, tmp_path)
    write_shards(config)
    path = shard_folder(config) / "index.json"
    for text in ("[]", "{}", '{"format": 1}', json.dumps({**json.loads(path.read_text()), "splits": {"a": [{}]}})):
        path.write_text(text)
        with pytest.raises(UserError, match=r"index\.json: (expected |splits)"):
            read_index(shard_folder(config))
    assert write_shards(config).written > 0
    assert hashes(shard_folder(config)) == hashes(made.shards)
