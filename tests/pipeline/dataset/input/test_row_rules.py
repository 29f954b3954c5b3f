"""Settings for rows that break a rule, for equal and for near-duplicate sequences."""

import itertools
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pytest

from pipeline.cli.messages import describe_build
from pipeline.dataset.build import build_dataset
from pipeline.dataset.database import open_dataset, statement
from pipeline.errors import UserError
from tests.conftest import ROOT, small_config
from tests.pipeline.dataset.toy_dataset import GOOD, OUTPUTS, TOY, L, R, everything, line, toy_config, write


@pytest.mark.parametrize(
    ("setting", "sequence", "becomes", "reason"),
    [
        ("assay.white_space=strip", f" {L}AC GT{R} ", f"{L}ACGT{R}", "white space in the sequence"),
        ("assay.lower_case=upper", f"{L}acGT{R}".lower(), f"{L}ACGT{R}", "lower-case bases"),
        ("assay.uracil=thymine", f"{L}ACGU{R}".replace("T", "U"), f"{L}ACGT{R}", "U in the sequence"),
        ("assay.iupac=n", f"{L}ACRYG{R}", f"{L}ACNNG{R}", "IUPAC codes other than ACGTN"),
        ("assay.missing_adapters=add", "ACGT", f"{L}ACGT{R}", "left adapter missing"),
    ],
)
def test_only_requested_repairs_are_made_and_counted(tmp_path, setting, sequence, becomes, reason):
    file = write(tmp_path / "toy.tsv", f"{GOOD}{sequence}\t5\n")
    plain = toy_config(tmp_path / "plain")
    built = build_dataset([file], plain)
    assert (built.rejects, built.repairs) == ({reason: 1}, {})
    output = describe_build(built)
    (rejected,) = [line for line in output if line.startswith(f"rejected   1: {reason}")]
    assert f"to repair: {setting}" in rejected
    assert not any("no rows" in line for line in output)
    config = toy_config(tmp_path / "repaired", setting)
    built = build_dataset([file], config)
    assert (built.rejects, built.repairs) == ({}, {setting.partition("=")[0].removeprefix("assay."): 1})
    with open_dataset(config.dataset.path) as connection:
        results = connection.execute("select sequence from promoters where expression = 5").fetchall()
    assert (becomes,) in results


def test_dataset_that_cannot_be_trained_on_has_a_note(tmp_path):
    config = toy_config(tmp_path, "dataset.pretrain_valid=0", "dataset.finetune_valid=0")
    output = "\n".join(describe_build(build_dataset([write(tmp_path / "toy.tsv", GOOD)], config)))
    assert "note       pretrain/valid, finetune/valid have no rows, which train.py needs; build again" in output
    assert output.endswith("dataset.pretrain_valid=1 dataset.finetune_valid=0.1")


def test_all_repairs_together(tmp_path):
    settings = ["assay.white_space=strip", "assay.lower_case=upper", "assay.uracil=thymine", "assay.iupac=n",
                "assay.missing_adapters=add"]  # fmt: skip
    config = toy_config(tmp_path, *settings)
    built = build_dataset([write(tmp_path / "toy.tsv", f"{GOOD}ac gur\t5\n{L}ACGT\t5\n")], config)
    (rejected,) = [line for line in describe_build(built) if line.startswith("rejected")]
    assert rejected.startswith("rejected   1: right adapter missing")
    assert "to repair" not in rejected
    assert built.rejects == {"right adapter missing": 1}  # one adapter without the other is no bare insert
    assert built.repairs == dict.fromkeys((s.partition("=")[0].removeprefix("assay.") for s in settings), 1)
    with open_dataset(config.dataset.path) as connection:
        assert (f"{L}ACGTN{R}",) in connection.execute("select sequence from promoters").fetchall()


EQUAL = line("ACGTACGT", 3) + GOOD + line("ACGTACGT", 8) + line("ACGTACGT", "nan") + line("ACGTACGT", 4.5)


@pytest.mark.parametrize(
    ("duplicates", "labels", "reason"),
    [
        ("keep", [3, 4.5, 8], None),
        ("first", [3], "equal to an earlier sequence"),
        ("average", [pytest.approx(15.5 / 3)], "averaged with an equal sequence"),
    ],
)
def test_equal_sequences(tmp_path, duplicates, labels, reason):
    config = toy_config(tmp_path, f"dataset.duplicates={duplicates}")
    built = build_dataset([write(tmp_path / "toy.tsv", EQUAL)], config)
    assert built.rejects == {"expression is NaN": 1} | ({reason: 2} if reason else {})
    assert built.info.input_rows == 16
    with open_dataset(config.dataset.path) as connection:
        results = connection.execute(
            f"select expression from promoters where sequence = '{L}ACGTACGT{R}' order by 1"
        ).fetchall()
        places = connection.execute(f"select line from rejects where reason = '{reason}' order by 1").fetchall()
    assert [label for (label,) in results] == labels
    assert places == ([(14,), (16,)] if reason else [])


def test_averages_do_not_depend_on_the_order_of_the_rows(tmp_path):
    rng = random.Random(1)
    rows = [line("ACGT" * (2 + i % 3), rng.uniform(0, 17)) for i in range(300)] + [line(*row) for row in TOY]
    results = []
    for number in range(3):
        rng.shuffle(rows)
        config = toy_config(tmp_path / str(number), "dataset.duplicates=average")
        build_dataset([write(tmp_path / f"{number}.tsv", "".join(rows))], config)
        results.append(everything(config.dataset.path)["promoters"])
    assert results[0] == results[1] == results[2]


def families(rng, families_, members, singles):
    """Draw inserts in families of near-duplicates (0 to 2 mismatches, one indel), and some without near-duplicates."""
    letters = np.array(list("ACGT"))
    inserts = []
    for _ in range(families_):
        parent = rng.choice(letters, 80)
        for _ in range(members):
            child = parent.copy()
            child[rng.integers(0, 80, rng.integers(0, 2))] = rng.choice(letters)
            inserts.append("".join(np.delete(child, rng.integers(80)) if rng.random() < 0.2 else child))
    return inserts + ["".join(rng.choice(letters, 80)) for _ in range(singles)]


def within(a, b):
    """Return whether two inserts differ by at most two mismatches, or one indel."""
    if len(a) == len(b):
        return sum(x != y for x, y in zip(a, b, strict=True)) <= 2
    long, short = (a, b) if len(a) > len(b) else (b, a)
    return len(long) == len(short) + 1 and any(long[:i] + long[i + 1 :] == short for i in range(len(long)))


def leaks(file, config):
    """Count held-out rows of a random split with a near-duplicate in training, by brute force."""
    build_dataset([file], config)
    with open_dataset(config.dataset.path) as connection:
        split_of = connection.execute("select insert_of(sequence), split from finetune").fetchall()
    train = {insert for insert, split in split_of if split == "train"}
    return sum(any(within(insert, other) for other in train) for insert, split in split_of if split != "train")


def test_near_duplicates_lie_in_one_split(tmp_path):
    rng = np.random.default_rng(3)
    inserts = families(rng, 25, 5, 150)
    rows = [line(insert, round(rng.uniform(0, 17), 3)) for insert in [*inserts, *inserts[:20]]]
    results = []
    for number in range(2):
        random.Random(number).shuffle(rows)
        file = write(tmp_path / f"{number}.tsv", "".join(rows))
        config = small_config(tmp_path / str(number), "dataset.split=grouped")
        built = build_dataset([file], config, threads=1 + number)
        results.append(everything(config.dataset.path))
    assert results[0] == results[1]
    n = len(rows)
    assert (built.info.finetune_test_rows, built.info.finetune_valid_rows) == (n // 10, n // 10)
    with open_dataset(config.dataset.path) as connection:
        split_of = connection.execute("select insert_of(sequence), split from finetune").fetchall()
    by_split = {name: {insert for insert, split in split_of if split == name} for name in ("test", "valid", "train")}
    assert all(by_split.values())
    for first, second in itertools.combinations(by_split.values(), 2):
        assert not any(within(a, b) for a in first for b in second)
    assert built.info.random_split_leaks == leaks(file, small_config(tmp_path / "random")) > 0
    # What finetune_train leaves out leaks nothing.
    few = "dataset.finetune_train=90"
    fewer = build_dataset([file], small_config(tmp_path / "few", "dataset.split=grouped", few)).info.random_split_leaks
    assert 0 < fewer == leaks(file, small_config(tmp_path / "random-few", few)) < built.info.random_split_leaks


def test_groups_go_to_each_split_by_its_share(tmp_path):
    """300 pairs of equal rows, of which 30 and 60 are to be expected in splits of 10 and 20 %; single rows fill up."""
    rng = np.random.default_rng(6)
    singles = families(rng, 0, 0, 900)
    rows = "".join(line(insert, round(rng.uniform(0, 17), 3)) for insert in [*singles, *singles[:300]])
    sizes = "dataset.finetune_test=0.1", "dataset.finetune_valid=0.2"
    config = small_config(tmp_path, "dataset.split=grouped", *sizes)
    info = build_dataset([write(tmp_path / "a.tsv", rows)], config).info
    assert (info.split_rows["finetune/test"], info.split_rows["finetune/valid"]) == (120, 240)
    with open_dataset(config.dataset.path) as connection:
        split_of = connection.execute("select sequence, split from finetune").fetchall()
    sizes_of = Counter(sequence for sequence, _ in split_of)
    pairs = Counter(split for sequence, split in set(split_of) if sizes_of[sequence] == 2)
    assert pairs.total() == 300  # none in two splits
    assert 15 <= pairs["test"] <= 45
    assert 40 <= pairs["valid"] <= 80


def test_groups_too_large_for_the_splits_are_a_clear_error(tmp_path):
    rng = np.random.default_rng(4)
    rows = "".join(line(insert, 5) for insert in families(rng, 2, 50, 1))
    with pytest.raises(UserError, match="too few promoters are in no cluster"):
        build_dataset([write(tmp_path / "a.tsv", rows)], small_config(tmp_path, "dataset.split=grouped"))


def test_unchanged_dataset_is_not_rebuilt(tmp_path):
    file = write(tmp_path / "toy.tsv", GOOD)
    config = toy_config(tmp_path)
    first = build_dataset([file], config)
    inode = os.stat(config.dataset.path).st_ino  # noqa: PTH116
    again = build_dataset([file], config)
    assert again.reused
    assert (again.info, again.rejects) == (first.info, first.rejects)
    assert os.stat(config.dataset.path).st_ino == inode  # noqa: PTH116
    assert not build_dataset([file], toy_config(tmp_path, "dataset.seed=1")).reused
    assert not build_dataset([file], config).reused
    write(tmp_path / "toy.tsv", GOOD + line("ACGT", 5))
    assert build_dataset([file], config).info.promoters == 13


def test_two_builds_at_once(tmp_path):
    file = write(tmp_path / "toy.tsv", GOOD)
    config = toy_config(tmp_path)

    def second(_):
        with pytest.raises(UserError, match=rf"process {os.getpid()} is building .*dataset.duckdb; fix: wait for it"):
            build_dataset([file], config)

    assert build_dataset([file], config, on_step=second).info.promoters == 12


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_interrupted_build_keeps_the_old_dataset(tmp_path, made, end):
    """At random times; the next build removes leftovers and gives the same dataset as an uninterrupted one."""
    moments = random.Random(int(end))
    folder = tmp_path / "work"
    folder.mkdir()
    config = toy_config(folder)
    toy = write(folder / "toy.tsv", GOOD)
    build_dataset([toy], config)
    before = everything(config.dataset.path)
    rows = write(folder / "rows.tsv", made.rows.read_text() * 40)
    command = [sys.executable, "-m", "model.cli", "build", rows, "--dataset", config.dataset.path, "assay.flank=5"]
    command += ["--replace", "dataset.finetune_valid=0.1", "dataset.finetune_test=0.1", "dataset.pretrain_valid=0.3"]
    for _ in range(5):
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        while not (folder / ".dataset.duckdb.partial").exists() and process.poll() is None:
            time.sleep(0.001)
        time.sleep(moments.uniform(0, 0.9))
        process.send_signal(end)
        _, errors = process.communicate()
        if "4 of 4 steps" in errors:  # it was quicker
            build_dataset([toy], config, replace=True)
            continue
        assert "Traceback" not in errors
        if end == signal.SIGINT:
            assert errors.splitlines()[-1].startswith("interrupted; run the same command to start again")
            assert {path.name for path in folder.iterdir()} == {"toy.tsv", "rows.tsv", *OUTPUTS}
        results = everything(config.dataset.path)
        if len(results["promoters"]) == 12:
            assert results == before
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    assert len(everything(config.dataset.path)["promoters"]) == 60_000
    names = {path.name for path in folder.iterdir()}
    assert names == {"toy.tsv", "rows.tsv", *OUTPUTS}


def test_the_query_for_near_duplicates(tmp_path):
    rng = np.random.default_rng(5)
    letters = list("ACGT")
    singles = ["".join(rng.choice(letters, 80)) for _ in range(60)]
    first = "A" + singles[0][1:]
    second = "C" + first[1:]
    rows = [*((s, 5) for s in singles[1:]), (first, 8), (second, 9), (first, 6)]
    config = small_config(tmp_path, "dataset.split=grouped")
    build_dataset([write(tmp_path / "a.tsv", "".join(line(*row) for row in rows))], config)
    with open_dataset(config.dataset.path) as connection:
        results = connection.execute(statement("queries/near_duplicates.sql")).fetchall()
        split = connection.execute("select distinct split from near_duplicates").fetchall()
    assert results == [(2, first, second, 1, split[0][0], 9.0, 7.0)]


def test_full_disk_keeps_the_old_dataset(tmp_path, made):
    """On a real file system of 4 MB, which is filled by the build."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.strip()}")
    try:
        config = toy_config(disk)
        build_dataset([write(tmp_path / "toy.tsv", GOOD)], config)
        before = everything(config.dataset.path)
        rows = write(tmp_path / "rows.tsv", made.rows.read_text() * 40)
        with pytest.raises(UserError, match=r"(?i)the disk is full|no space left"):
            build_dataset([rows], config)
        assert everything(config.dataset.path) == before
        assert {path.name for path in disk.iterdir()} == OUTPUTS
    finally:
        subprocess.run(["umount", str(disk)], check=True)
