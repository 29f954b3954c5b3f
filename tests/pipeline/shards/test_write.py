import json
import random
import subprocess
import sys
import time
import zlib
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import webdataset as wds

from model.config import load_config
from pipeline.dataset.build import build_dataset
from pipeline.dataset.database import dataset_info, open_dataset
from pipeline.dataset.synthetic.generate import generate
from pipeline.errors import UserError
from pipeline.shards.index import read_index, shard_key
from pipeline.shards.location import shard_folder
from pipeline.shards.plan import SPLITS
from pipeline.shards.records import read_record
from pipeline.shards.staleness import check_fresh
from pipeline.shards.verify import verify_shards
from pipeline.shards.write import write_shards
from pipeline.tokens.kmers import decode_ids
from tests.conftest import ROOT, SMALL, small_config
from tests.pipeline.shards.shard_files import hashes, rows_of, with_shards_in, write_index


def test_webdataset_reads_every_row(made):
    """webdataset reads the shards without this package."""
    index = json.loads((made.shards / "index.json").read_text())
    for split in SPLITS:
        urls = [str(made.shards / shard["file"]) for shard in index["splits"][split]]
        rows = []
        for record in wds.WebDataset(urls, shardshuffle=False).decode():
            tokens, offsets = record["tokens.npy"], record["offsets.npy"]
            assert tokens.dtype == np.uint8
            for i, (number, label) in enumerate(zip(record["id.npy"], record["expression.npy"], strict=True)):
                ids = tokens[offsets[i] : offsets[i + 1]]
                rows.append((number, "".join("ACGTN"[(t - 5) // 25] for t in ids), label))
        assert rows == [(i, s, np.float32(e)) for i, s, e in rows_of(made.config, split)]


def test_index_and_relations_locate_every_record(made):
    write_shards(made.config)  # other tests may have published other shards of this dataset
    index = read_index(made.shards)
    with open_dataset(made.config.dataset.path) as connection:
        records = connection.execute(
            'select s.file, r."offset", r.bytes, r.rows, r.crc32 from records r '
            "join shards s using (k, stage, split, shard) where k = 3 order by s.file, r.record"
        ).fetchall()
        lost = connection.execute(
            "select count(*) from finetune f where (select count(*) from records r where r.k = 3 and "
            "r.stage = 'finetune' and r.split = f.split and f.position >= r.first_position and "
            "f.position < r.first_position + r.rows) <> 1"
        ).fetchone()
    assert lost == (0,)
    assert len(records) == sum(len(s.records) for shards in index.splits.values() for s in shards)
    for file, offset, size, rows, crc32 in records:
        with Path(file).open("rb") as tar:
            tar.seek(offset)
            assert zlib.crc32(tar.read(size)) == crc32
        assert 0 < rows <= 100
    for shards in index.splits.values():
        counts = [len(shard.records) for shard in shards]
        assert max(counts) - min(counts) <= 1


def test_same_bytes_with_any_number_of_writers(made, tmp_path):
    for workers in (1, 4):
        config = with_shards_in(made.config, tmp_path / str(workers), f"shards.workers={workers}")
        assert write_shards(config).written > 5
        assert hashes(shard_folder(config)) == hashes(made.shards)


def test_same_bytes_after_random_kills(tmp_path):
    """kill -9 of all writers at random moments: each run resumes, and the bytes are equal at the end."""
    rows = tmp_path / "rows.tsv"
    generate(rows, 20_000, seed=2)
    config = small_config(tmp_path, "shards.record_promoters=200")
    build_dataset([str(rows)], config)
    whole = with_shards_in(config, tmp_path / "whole", "shards.record_promoters=200")
    write_shards(whole)
    command = [
        sys.executable, "-m", "model.cli", "shards", *SMALL, "shards.record_promoters=200",
        f"dataset.path={config.dataset.path}", f"shards.path={config.shards.path}",
    ]  # fmt: skip

    def writers():
        result = subprocess.run(["pgrep", "-g", str(process.pid)], capture_output=True, text=True).stdout.split()
        return [pid for pid in result if state(pid) not in ("Z", "gone")]

    def state(pid):
        try:
            return Path(f"/proc/{pid}/stat").read_text().split()[2]
        except (FileNotFoundError, ProcessLookupError):
            return "gone"

    def notes():
        return len(list((tmp_path / "shards").glob(".k3.*/*/[a-z]*.json")))

    finished = 0
    for more in random.Random(5).sample(range(1, 16), 3):
        process = subprocess.Popen(
            command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
        )
        while notes() < finished + more:
            time.sleep(0.001)
        process.kill()  # its writers end by themselves
        process.wait()
        deadline = time.monotonic() + 20
        while writers() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not writers()
        assert not shard_folder(config).exists()
        assert notes() >= finished
        finished = notes()
    last = subprocess.run(command, capture_output=True, text=True, check=False)
    assert last.returncode == 0, last.stderr
    assert hashes(shard_folder(config)) == hashes(shard_folder(whole))
    assert [p.name for p in (tmp_path / "shards").iterdir() if p.name != ".k3.lock"] == ["k3"]


def test_second_call_writes_nothing_and_another_k_keeps_the_first(made, tmp_path):
    config = with_shards_in(made.config, tmp_path)
    write_shards(config)
    before = hashes(shard_folder(config))
    began = time.monotonic()
    assert write_shards(config).written == 0
    assert time.monotonic() - began < 1
    four = with_shards_in(made.config, tmp_path, "shards.k=4")
    assert write_shards(four).written > 0
    assert read_index(shard_folder(four)).dtype == "uint16"
    assert hashes(shard_folder(config)) == before


@pytest.mark.parametrize("k", [1, 2, 5, 8])
def test_sequences_round_trip_for_any_k(made, tmp_path, k):
    config = with_shards_in(made.config, tmp_path, f"shards.k={k}")
    write_shards(config)
    verify_shards(shard_folder(config))
    index = read_index(shard_folder(config))
    urls = [str(shard_folder(config) / shard.file) for shard in index.splits["finetune/test"]]
    result = []
    for record in wds.WebDataset(urls, shardshuffle=False).decode():
        bounds = record["offsets.npy"]
        result += [decode_ids(record["tokens.npy"][a:b], k) for a, b in pairwise(bounds)]
    assert result == [sequence for _, sequence, _ in rows_of(config, "finetune/test")]


def test_key_depends_exactly_on_what_determines_the_bytes():
    config = load_config(ROOT / "config.yaml")

    def key(dataset="0" * 64, **changes):
        sections = config.assay, config.shards
        assay, shards = ({n: v for n, v in changes.items() if n in type(s).model_fields} for s in sections)
        copies = {"assay": config.assay.model_copy(update=assay), "shards": config.shards.model_copy(update=shards)}
        return shard_key(dataset, config.model_copy(update=copies))

    changed = [
        key(dataset="1" * 64),
        key(k=4),
        key(flank=149),
        key(upstream=config.assay.upstream[:-1] + "N"),
        key(downstream="N" + config.assay.downstream[1:]),
        key(record_promoters=4095),
        key(shard_megabytes=63.0),
        key(compression="zstd"),
    ]
    assert len({key(), *changed}) == 1 + len(changed)
    assert key(path="elsewhere", workers=7, cache="x", cache_gigabytes=1.0) == key()
    assert (
        key() == "5b9bf167ff8ea2427b82ba6aeaec3419c40570b8d97e34bf8078114f50ed49ab"
    )  # shards that an older version wrote stay valid


def test_changed_flank_rewrites_the_shards(made, tmp_path):
    config = with_shards_in(made.config, tmp_path)
    write_shards(config)
    key = read_index(shard_folder(config)).key
    changed = with_shards_in(made.config, tmp_path, "assay.flank=6")
    announced = []

    def on_replace(index, reasons):
        assert read_index(shard_folder(config)) == index  # nothing is replaced yet
        announced.append((index.key, reasons))

    assert write_shards(changed, on_replace=on_replace).written > 0
    assert announced == [(key, ["assay.flank: 5 -> 6"])]
    write_shards(changed, on_replace=on_replace)
    assert len(announced) == 1
    assert read_index(shard_folder(config)).key != key


def test_index_with_fewer_promoters_than_the_dataset(made, tmp_path):
    """The last shard is removed with its entry, and the hash of the index matches."""
    config = with_shards_in(made.config, tmp_path)
    write_shards(config)
    whole = hashes(shard_folder(config))
    values = asdict(read_index(shard_folder(config)))
    removed = values["splits"]["finetune/train"].pop()
    (shard_folder(config) / removed["file"]).unlink()
    write_index(shard_folder(config), values)
    verify_shards(shard_folder(config))  # a smaller set of shards in itself
    with open_dataset(config.dataset.path) as connection:
        info = dataset_info(connection)
    with pytest.raises(UserError, match=r"finetune/train: expected 1,200 promoters, got \d"):
        check_fresh(read_index(shard_folder(config)), config, info)
    write_shards(config)
    assert hashes(shard_folder(config)) == whole


def test_large_records_give_no_empty_shards(made, tmp_path):
    config = with_shards_in(made.config, tmp_path, "shards.shard_megabytes=1e-9")
    write_shards(config)
    shards = list(read_index(shard_folder(config)).shards)
    assert [len(shard.records) for shard in shards] == [1] * len(shards)
    verify_shards(shard_folder(config))


def test_two_writers_of_one_folder(made, tmp_path):
    config = with_shards_in(made.config, tmp_path)
    code = (
        "import fcntl, sys, time; f = open(sys.argv[1], 'a+'); fcntl.flock(f, fcntl.LOCK_EX); "
        "f.write('4711'); f.flush(); print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / ".k3.lock")], stdout=subprocess.PIPE)
    holder.stdout.readline()
    with pytest.raises(UserError, match="process 4711 is writing shards"):
        write_shards(config)
    holder.kill()
    holder.wait()
    assert write_shards(config).written > 0


def test_adapters_other_than_those_of_the_build_are_rejected(made, tmp_path):
    with pytest.raises(UserError, match="left_adapter"):
        write_shards(with_shards_in(made.config, tmp_path, "assay.left_adapter=ACGT"))


@pytest.mark.parametrize("name", ["dream_train_7k.tsv", "yeast_measured_64k.tsv"])
def test_real_rows_of_all_lengths_round_trip_for_any_k(tmp_path, real_data, name):
    """Inserts of 57 to 105 bases, some with N: every sequence of the dataset, from every split, for k = 1 to 6."""
    if not (real_data / name).exists():
        pytest.skip(f"{name} is not here")
    wide = "assay.min_expression=-5", "assay.max_expression=25"
    build_dataset([str(real_data / name)], small_config(tmp_path, *wide))
    for k in range(1, 7):
        sizes = "shards.record_promoters=1000", "shards.shard_megabytes=4"
        config = small_config(tmp_path, *wide, *sizes, f"shards.k={k}")
        write_shards(config)
        index = read_index(shard_folder(config))
        for split, shards in index.splits.items():
            result = []
            for shard in shards:
                for number in range(len(shard.records)):
                    record = read_record(shard_folder(config), shard, number, k)
                    text = decode_ids(record.tokens.values, k)  # all rows in one go, then cut
                    texts = [text[a:b] for a, b in pairwise(record.tokens.offsets)]
                    result += list(zip(record.id.tolist(), texts, strict=True))
            assert result == [(i, sequence) for i, sequence, _ in rows_of(config, split)]
