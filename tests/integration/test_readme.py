"""Every command and every snippet of the README and of the pages for users, run unchanged in a folder like a user's."""

import json
import shlex
from contextlib import nullcontext

import pytest
import yaml

from model.config import load_config
from tests.conftest import ROOT
from tests.documents import read_blocks
from tests.integration import hosts as lab
from tests.integration.conftest import make_workspace
from tests.model.scoring.toy_challenge import ROWS, make_challenge

pytestmark = pytest.mark.processes

PAGES = ("README.md", "docs/dataset.md", "docs/training.md", "docs/prediction.md", "docs/cluster.md")
"""In the order of reading: later pages use the files of earlier ones. Other pages have tests of their own."""
ELSEWHERE = {
    "make demo": "test_demo.py",
    "make test": "this very run",
    "promoter-bert download": "test_download.py, from a server of its own",
    "deepspeed train.py shards.path=s3://bucket/shards": "test_remote_shards.py, from a server of its own",
    "deepspeed train.py --config configs/h200.yaml --deepspeed_config configs/ds_h200.json": "test_engine.py: a GPU's",
    "python -m bench.training.gpu": "test_bench_gpu.py, in a small form",
    "python -m bench.training.bench_train --config configs/h200.yaml --deepspeed_config configs/ds_h200.json": "too",
    "sbatch examples/slurm/train.sbatch doctor": "test_slurm.py, on a Slurm of its own",
    "sbatch examples/slurm/train.sbatch": "too",
    "sbatch --nodes=4 examples/slurm/train.sbatch run.name=four-nodes": "too",
    "sbatch --export=ALL,NODE_DISK=/scratch examples/slurm/train.sbatch": "too",
    "torchrun --nnodes 2 --nproc-per-node 8 --rdzv-backend c10d --rdzv-id paper --rdzv-endpoint worker-1:29400 "
    "--max-restarts 5 train.py": "test_torchrun.py, with two agents",
    "python train.py --config mpra-generic.yaml": "test_your_own_assay.py, with the preset of another assay",
    "promoter-bert compare runs/mpra-generic runs/mpra-generic-ridge": "needs that training; test_compare_page.py",
    "promoter-bert predict runs/mpra-generic new_sequences.fasta -o predictions.csv --names": "too",
    'promoter-bert query "select id, construct, expression, prediction from predictions join promoters using (id) '
    "where run = 'demo' and split = 'test' order by expression desc limit 10\"": "needs a column construct",
    "source .venv/bin/activate": "the tests have the environment's commands on their path",
}


def blocks(language):
    return [text for page in PAGES for text in read_blocks(ROOT / page, language)]


def alone(arguments):
    """The same workspace without hosts to reach by ssh."""
    place = arguments.index("--hostfile")
    return [*arguments[:place], *arguments[place + 2 :]]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    made = make_workspace(tmp_path_factory.mktemp("readme") / "work")
    made.run("promoter-bert", "generate", "train_sequences.txt", "--rows", "1200")
    made.run("promoter-bert", "generate", "test.tsv", "--rows", str(ROWS), "--seed", "9")
    made.run("promoter-bert", "generate", "table.tsv", "--rows", "300", "--seed", "3")
    with_files_of_the_challenge(made.folder)
    promoters = (made.folder / "test_sequences.txt").read_text().splitlines()[:3]
    entries = (f">gene{n} some words\n{line.split()[0].lower()}\n" for n, line in enumerate(promoters))
    (made.folder / "genes.fasta").write_text("".join(entries))
    return made


def with_files_of_the_challenge(folder):
    """Write the challenge's files that the README names, with the promoters of test.tsv."""
    toy = make_challenge(folder)
    toy.sequences = [line.split("\t")[0] for line in (folder / "test.tsv").read_text().splitlines()]
    toy.write()
    for ours, theirs in {
        "test.txt": "test_sequences.txt",
        "labels.tsv": "filtered_test_data_with_MAUDE_expression.txt",
        "subsets": "test_subset_ids",
        "public": "public_leaderboard_ids",
        "ground.json": "sample_submission.json",
    }.items():
        (folder / ours).rename(folder / theirs)


@pytest.mark.timeout(900)
def test_commands_and_snippets(workspace):
    lines = [line for block in blocks("sh") for line in block.splitlines() if line.strip()]
    commands = list(dict.fromkeys(lines))  # pages repeat commands of the README
    assert set(ELSEWHERE) < set(commands)
    # DeepSpeed connects to all hosts of a hostfile by ssh, also to localhost, so this runs on a host with an sshd.
    with lab.two_hosts() if not lab.missing() else nullcontext() as hosts:
        for command in commands:
            arguments = shlex.split(command)
            if "--hostfile" in arguments:
                arguments = hosts.on(1, *arguments) if hosts else alone(arguments)
            if command not in ELSEWHERE:
                workspace.run(*arguments)
    runs = json.loads(workspace.run("promoter-bert", "query", "--json", "select run, test_pearson from runs").stdout)
    scores = {row["run"]: row["test_pearson"] for row in runs}
    # The four ways to start: hostfile, launcher, launcher with two processes, none.
    assert set(scores) == {"paper", "four-mers", "all-machines", "two-processes", "one-process"}
    assert scores["paper"] == scores["all-machines"] == scores["one-process"]
    held_out = ("--json", "--dataset", "tenth.duckdb", "select finetune_train_rows, finetune_test_rows from dataset")
    (tenth,) = json.loads(workspace.run("promoter-bert", "query", *held_out).stdout)
    (whole,) = json.loads(workspace.run("promoter-bert", "query", "--json", held_out[-1]).stdout)
    assert tenth == {**whole, "finetune_train_rows": 120}
    assert len((workspace.folder / "predictions.tsv").read_text().splitlines()) == ROWS
    genes = (workspace.folder / "genes.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in genes] == ["name", "gene0", "gene1", "gene2"]
    assert not any("nan" in line for line in genes)
    assert {"report.html", "model"} < {path.name for path in (workspace.folder / "runs" / "paper").iterdir()}
    assert {"compare.html", "page.html", "effects.tsv", "leaderboard.json"} < {
        p.name for p in workspace.folder.iterdir()
    }
    for snippet in blocks("python"):
        # That of configs/small.yaml needs such a model; test_stock_calls.py checks its value.
        workspace.run("python", "-c", snippet.replace("runs/small/", "runs/paper/"))


def test_the_configuration_of_another_assay(tmp_path):
    (example,) = blocks("yaml")
    (tmp_path / "mine.yaml").write_text(example.replace("config.yaml", str(ROOT / "config.yaml")))
    assert load_config(tmp_path / "mine.yaml").assay.max_insert == 200
    assert yaml.safe_load(example)["base"] == "config.yaml"
