"""Check training on a GPU for the first time: four parts, each in a process of its own with a time limit.

    python -m bench.training.gpu_checks --out checks            ten minutes on one GPU
    python -m bench.training.gpu_checks --out checks --tiny     rehearsal on any machine

1. attention: which kernels run with and without a mask; fp16 outputs beside those of torch's MATH backend on padded
   rows of 128, 136 and 144 tokens.
2. resume: a training that is stopped at ZeRO 1 and resumed at ZeRO 2, and one stopped on two ranks and resumed on one
   if there are two GPUs (NCCL does not put two ranks on one GPU). Scores are compared with an uninterrupted run.
3. rates: bench.training.gpu. 4. job: bench.training.real_run on generated promoters.

Each part writes its output to a file of its own in --out, and the others still run if it hangs or fails. Exit code 1 if
any part failed.
"""

import argparse
import copy
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from model.bert.fused_attention import fuse_projections
from model.bert.objectives import average_over_frames
from pipeline.dataset.synthetic.generate import generate
from pipeline.paths import ROOT

LIMITS = {"attention": 60, "resume": 180, "rates": 210, "job": 150}
"""Seconds per part: ten minutes in all."""
WIDTHS = (128, 136, 144)
TOLERANCE = 3.0
"""Largest accepted error of fp16 outputs, as a multiple of the error of the MATH backend in fp16."""
SMALL = [
    "dataset.finetune_valid=0.1", "dataset.finetune_test=0.1", "dataset.pretrain_valid=0.1", "model.hidden=64",
    "model.heads=4", "model.layers=2", "model.intermediate=128", "finetune.start=scratch", "finetune.max_epochs=1",
    "finetune.warm_up=0", "model.dropout=0.0", "assay.flank=0",
]  # fmt: skip
"""Model and stages of the parts 2 and 4 in a rehearsal, and of part 2 in any case."""


def check_attention(tiny: bool) -> str:
    """Compare errors of fp16 outputs with the MATH backend's, and list the kernels. Errors are those against float32.

    Returns lines; raises if an error is too large.
    """
    from transformers import BertConfig, BertForSequenceClassification

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    rows, hidden = (8, 64) if tiny else (512, 512)
    size = BertConfig(
        vocab_size=130, hidden_size=hidden, num_hidden_layers=3, num_attention_heads=8, intermediate_size=4 * hidden,
        max_position_embeddings=272, num_labels=1,
    )  # fmt: skip
    whole = BertForSequenceClassification(size).eval().to(device)
    model = copy.deepcopy(whole).half()
    fuse_projections(model)
    lines, worst = [], 0.0
    for width in WIDTHS:
        bases = 3 * (width - 2)
        for is_full in (False, True):
            lengths = torch.full((rows,), bases + 2) if is_full else torch.randint(bases - 60, bases + 3, (rows,))
            tokens = torch.randint(5, 130, (rows, bases), dtype=torch.uint8).to(device)
            lengths = lengths.to(device)
            with torch.inference_mode():
                with sdpa_kernel(SDPBackend.MATH):
                    expected, math = (average_over_frames(one, tokens, lengths, 3) for one in (whole, model))
                with torch.profiler.profile() as profiler:
                    output = average_over_frames(model, tokens, lengths, 3, is_full=is_full)
            error, of_math = (float((one - expected).abs().max()) for one in (output, math))
            worst = max(worst, error / of_math)
            kernels = {event.key for event in profiler.key_averages() if is_attention(event.key)}
            kind = "full" if is_full else "padded"
            lines.append(f"{width} tokens, {kind}: error {error:.1e}, of MATH {of_math:.1e}; {sorted(kernels)}")
    text = "\n".join(lines)
    if not worst < TOLERANCE:
        raise AssertionError(f"{text}\nexpected errors below {TOLERANCE} times those of MATH")
    return text


def is_attention(kernel: str) -> bool:
    """Return whether an operation's name is that of an attention kernel."""
    return any(part in kernel.lower() for part in ("attention", "flash", "fmha", "cudnn_sdpa"))


def check_resume(work: Path, tiny: bool) -> str:
    """Stop and resume trainings. Returns their scores; raises if they differ from those of an uninterrupted run."""
    generate(work / "rows.tsv", 6_000 if tiny else 20_000)
    common = [*SMALL, f"dataset.path={work}/dataset.duckdb", f"shards.path={work}/shards", f"run.path={work}/runs"]
    common += ["assay.missing_adapters=add", "finetune.evaluate_every=0.5"]
    cli = [sys.executable, "-m", "model.cli"]
    subprocess.run([*cli, "build", str(work / "rows.tsv"), *common], cwd=ROOT, check=True)
    subprocess.run([*cli, "shards", *common], cwd=ROOT, check=True)
    train = ["train.py", *common]
    zero = {stage: write_ds_config(work, stage) for stage in (1, 2)}
    scores = {"whole": run(train, "whole", 1, zero[1], work)}
    pairs = {"ZeRO 1 to 2": (1, zero[1], 1, zero[2])}
    if torch.cuda.device_count() != 1:  # a CPU takes any number of ranks
        pairs["2 ranks to 1"] = (2, zero[1], 1, zero[1])
    for name, (ranks, before, ranks_after, after) in pairs.items():
        directory = name.replace(" ", "-")
        stop_after_steps(train, directory, ranks, before, work, steps=20)
        scores[name] = run(train, directory, ranks_after, after, work)
    text = json.dumps(scores, indent=1)
    if max(scores.values()) - min(scores.values()) > 0.02:
        raise AssertionError(f"{text}\nexpected Pearson correlations within 0.02")
    return text


def write_ds_config(work: Path, stage: int) -> Path:
    """Write DeepSpeed settings of the project's default precision at a ZeRO stage."""
    values = json.loads((ROOT / "ds_config.json").read_text())
    values["zero_optimization"]["stage"] = stage
    file = work / f"zero-{stage}.json"
    file.write_text(json.dumps(values))
    return file


def launch(train: Sequence[str], name: str, ranks: int, ds_config: Path) -> "subprocess.Popen[bytes]":
    """Start a training on some ranks."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    command = [sys.executable, *launcher, *train, f"run.name={name}", "--deepspeed_config", str(ds_config)]
    return subprocess.Popen(command, cwd=ROOT)


def run(train: Sequence[str], name: str, ranks: int, ds_config: Path, work: Path) -> float:
    """Train, or resume, to the end. Returns the Pearson correlation of the test split."""
    process = launch(train, name, ranks, ds_config)
    if process.wait():
        raise AssertionError(f"{name}: expected exit code 0, got {process.returncode}")
    summary = json.loads((work / "runs" / name / "summary.json").read_text())
    return float(summary["scores"]["test"]["pearson"])


def stop_after_steps(train: Sequence[str], name: str, ranks: int, ds_config: Path, work: Path, steps: int) -> None:
    """Start a training, and stop it with a checkpoint once it has logged some steps."""
    process, log = launch(train, name, ranks, ds_config), work / "runs" / name / "metrics.jsonl"
    while process.poll() is None:
        lines = log.read_text().splitlines() if log.exists() else []
        if any(json.loads(line)["step"] >= steps for line in lines if line.endswith("}")):
            process.send_signal(signal.SIGTERM)
            break
        time.sleep(0.2)
    process.wait()
    if (work / "runs" / name / "summary.json").exists():
        raise AssertionError(f"{name}: ended before it was stopped")


def commands(out: Path, tiny: bool) -> dict[str, list[str]]:
    """Return the command of each part."""
    this = ["-m", "bench.training.gpu_checks", "--out", str(out), *(["--tiny"] if tiny else [])]
    rates = ["-m", "bench.training.gpu", "--out", str(out / "gpu.md"), *(["--tiny", "--steps", "3"] if tiny else [])]
    job = [
        "-m", "bench.training.real_run", str(out / "rows.tsv"), "--test", str(out / "rows.tsv"),
        "--work", str(out / "job"), "assay.missing_adapters=add", "dataset.finetune_valid=0.05",
        "dataset.finetune_test=0.05",
    ]  # fmt: skip
    if tiny:
        job += SMALL
    else:
        presets = ["--config", str(ROOT / "configs/h200.yaml"), "--deepspeed_config"]
        job += [*presets, str(ROOT / "configs/ds_h200.json"), "pretrain.max_epochs=1", "finetune.max_epochs=1"]
    return {"attention": [*this, "--part", "attention"], "resume": [*this, "--part", "resume"],
            "rates": [*rates, *([] if tiny else ["--steps", "15"])], "job": job}  # fmt: skip


def run_parts(out: Path, tiny: bool, only: Sequence[str]) -> int:
    """Run the parts one after another. Returns the number that failed."""
    failed = 0
    generate(out / "rows.tsv", 600 if tiny else 400_000)
    for name, command in commands(out, tiny).items():
        if name not in only:
            continue
        began, limit = time.monotonic(), LIMITS[name] * (4 if tiny else 1)  # a rehearsal may share its machine
        with (out / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, *command], cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
            try:
                state = f"exit code {process.wait(limit)}"
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                state = f"stopped after its limit of {limit} s"
        failed += state != "exit code 0"
        print(f"{name}: {state}, {time.monotonic() - began:.0f} s, see {out / name}.log", flush=True)
    return failed


def main() -> None:
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("--out", type=Path, required=True, help="folder of the results")
    cli.add_argument("--tiny", action="store_true", help="rehearsal with a small model")
    cli.add_argument("--part", choices=["attention", "resume"], help=argparse.SUPPRESS)  # in a process of its own
    cli.add_argument("--only", nargs="+", choices=list(LIMITS), default=list(LIMITS), help="default: all parts")
    args = cli.parse_args()
    out = args.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    if args.part == "attention":
        print(check_attention(args.tiny))
    elif args.part == "resume":
        (out / "resume").mkdir(exist_ok=True)
        print(check_resume(out / "resume", args.tiny))
    else:
        sys.exit(min(run_parts(out, args.tiny, args.only), 1))


if __name__ == "__main__":
    main()
