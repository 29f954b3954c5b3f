"""Training rate on one GPU: promoters per second and FLOP utilization of several configurations and other programs.

    python -m bench.training.gpu                      all rows, into bench/gpu.md; some minutes on one GPU
    python -m bench.training.gpu --trace trace.json   with a profile of three steps of the first row (chrome://tracing)
    python -m bench.training.gpu --prepare FOLDER     only write promoters and shards (needs no GPU) ...
    python -m bench.training.gpu --data FOLDER        ... and use them on the machine with the GPU
    python -m bench.training.gpu --tiny               smoke test on any machine: a small model, few steps

The model is that of config.yaml, the promoters are synthetic. The base is eager, ZeRO 1, fp16, 4,096 promoters per
step; each row changes one setting. Utilization is the rate of useful FLOP (model/bert/flops.py) relative to the rate of
plain matrix products in the same precision, measured just before. Other rows: prediction; fine-tuning with the Hugging
Face Trainer; fine-tuning with the method of the original team (tokenization per sample in DataLoader workers, autocast,
GradScaler). For another configuration: python -m bench.training.bench_train.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest.mock import patch

import torch

from bench.measure import markdown
from bench.training.bench_train import Measurement, MeasurementSpec, check_trace, make_shards, measure, synthetic_config
from bench.training.gpu_contenders import Bench, Variant, hugging_face, original_team, prediction, spec_of
from bench.training.timing import Rates, StepPlan
from model.config import Config, StageName, load_config
from model.distributed.process_group import init_group, leave_group
from pipeline.errors import UserError
from pipeline.io.atomic import expect_folder
from pipeline.paths import ROOT

BASE = Variant("finetune", "fp16", 1, 4096)
TINY = {"hidden": 32, "layers": 2, "heads": 4, "intermediate": 64}
HEAD = ["", "promoters/s", "slowest to fastest", "TFLOP/s", "of matmul", "data wait", "peak GB", "host waits per step"]


def variants(tiny: bool) -> Iterable[Variant]:
    """List the configurations to measure, the base first."""
    if tiny:
        few = Variant("finetune", "fp32", 1, 32)
        return [few, replace(few, stage="pretrain"), replace(few, zero=0), replace(few, compiled="aot_eager")]
    rows = []
    stages: tuple[StageName, ...] = ("finetune", "pretrain")
    for stage in stages:
        base = Variant(stage, BASE.precision, BASE.zero, BASE.batch)
        rows += [base, Variant(stage, "fp16", 1, 4096, "inductor"), Variant(stage, "bf16", 1, 4096)]
        rows += [Variant(stage, "bf16", 1, 4096, "inductor"), Variant(stage, "tf32", 1, 4096)]
        rows += [Variant(stage, "fp16", zero, 4096) for zero in (2, 3)] + [Variant(stage, "bf16", 0, 4096)]
        rows += [Variant(stage, "fp16", 1, batch) for batch in (64, 256, 1024, 2048, 8192)]
    return rows


def prepare(folder: Path, tiny: bool) -> None:
    """Write synthetic promoters to a folder, as rows and as shards."""
    config = load_config(ROOT / "config.yaml")
    if tiny:
        model, assay = config.model.model_copy(update=TINY), config.assay.model_copy(update={"flank": 0})
        config = config.model_copy(update={"model": model, "assay": assay})
    config = synthetic_config(config, folder)
    make_shards(config, folder, 600 if tiny else 200_000)
    (folder / "config.json").write_text(config.model_dump_json())


def row(name: str, rates: Rates, gigabytes: float) -> list[str]:
    """Format the columns that all contenders have."""
    return [
        name,
        f"{rates.median:,.0f}",
        f"{rates.slowest:,.0f} to {rates.fastest:,.0f}",
        "",
        "",
        "",
        f"{gigabytes:.1f}",
        "",
    ]


def own_row(result: Measurement) -> list[str]:
    """Format all columns of one of our measurements."""
    columns = row(result.name, Rates(result.promoters_per_second, result.slowest, result.fastest), result.gigabytes)
    columns[3:6] = f"{result.operations_per_second / 1e12:,.3g}", f"{result.utilization:.1%}", f"{result.data_wait:.2%}"
    columns[7] = "" if result.host_waits is None else str(result.host_waits)
    return columns


def attempt(name: str, make_rows: Callable[[], list[list[str]]]) -> list[list[str]]:
    """Make rows of the table, or one row with the error, so that the other rows are still measured."""
    try:
        return make_rows()
    except torch.OutOfMemoryError:
        problem = "out of memory"
    except Exception as error:
        traceback.print_exc()
        line = next(iter(str(error).splitlines()), "") or type(error).__name__
        problem = f"failed: {line[:80].replace('|', '/')}"
    return [[name, problem, *[""] * (len(HEAD) - 2)]]


def machine(device: torch.device) -> str:
    """Describe the device and the versions of its software."""
    name, driver = platform.processor() or platform.machine(), ""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        driver = f", driver {driver_version()}"
    return f"{name}{driver}, torch {torch.__version__}, CUDA {torch.version.cuda}, Python {platform.python_version()}"


def driver_version() -> str:
    """Return the version of the GPU driver; unknown without nvidia-smi."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return output.partition("\n")[0].strip()


def main() -> None:
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("--steps", type=int, default=30, help="timed steps per row; default: 30")
    cli.add_argument("--tiny", action="store_true", help="smoke test with a small model")
    cli.add_argument("--trace", type=Path, help=".json profile of the first row; default: none")
    cli.add_argument("--prepare", type=Path, help="only write promoters and shards to this folder")
    cli.add_argument("--data", type=Path, help="folder that --prepare wrote; default: a temporary one")
    cli.add_argument("--out", type=Path, default=ROOT / "bench/gpu.md", help="Markdown file; default: bench/gpu.md")
    args = cli.parse_args()
    try:
        expect_folder(args.out)
        check_trace(args.trace)
    except UserError as error:
        cli.error(str(error))
    if args.prepare:
        args.prepare.mkdir(parents=True, exist_ok=True)
        prepare(args.prepare, args.tiny)
        return
    with tempfile.TemporaryDirectory() as temporary:
        work = args.data or Path(temporary)
        if args.data is None:
            prepare(work, args.tiny)
        # The paths of files prepared on another machine are replaced.
        config = synthetic_config(Config.model_validate_json((work / "config.json").read_text()), work)
        measure_all(config, work, args)


def measure_all(config: Config, work: Path, args: argparse.Namespace) -> None:
    """Measure all rows, and rewrite the table after each, so that a crash loses none."""
    rates: dict[str, float] = {}
    rows: list[list[str]] = []

    def add(name: str, make_rows: Callable[[], list[list[str]]]) -> None:
        for each in attempt(name, make_rows):
            rows.append(each)
            print(" | ".join(each), flush=True)
        command = " ".join(["python -m bench.training.gpu", *sys.argv[1:]])
        matmul = ", ".join(f"{precision} {rate / 1e12:,.3g}" for precision, rate in rates.items())
        text = f"# Training on one GPU\n\n{machine(bench.world.device)}. `{command}`: {args.steps} steps each, "
        text += f"slowest to fastest of three parts of them. Plain matrix products, TFLOP/s: {matmul}.\n\n"
        args.out.write_text(f"{text}{markdown(HEAD, rows)}\n")

    def own_rows(variant: Variant, spec: MeasurementSpec) -> list[list[str]]:
        result = measure(spec, bench.world)
        rates[variant.precision] = result.matmul_per_second
        return [own_row(result)]

    def prediction_rows() -> list[list[str]]:
        result, whole = prediction(bench)
        how = "fp16" if bench.world.device.type == "cuda" else "fp32"
        from_file = [f"predict, {how}, from file to file", f"{whole:,.0f}", *[""] * (len(HEAD) - 2)]
        return [row(f"predict, {how}, sequences in memory", result.rates, result.gigabytes), from_file]

    before = dict(os.environ)
    plan = StepPlan(2 if args.tiny else 8, args.steps)
    bench = Bench(config, work, init_group(), plan, 2 if args.tiny else 10)

    def alone(name: str, make_rows: Callable[[], list[list[str]]]) -> None:
        # Predict and the Trainer behave differently inside the process group that DeepSpeed needs, so they run outside.
        with patch.dict(os.environ, before, clear=True):
            add(name, make_rows)

    ours = [
        (variant, spec_of(bench, variant, args.trace if number == 0 else None))
        for number, variant in enumerate(variants(args.tiny))
    ]
    for variant, spec in ours:
        if not variant.compiled:
            add(spec.name, partial(own_rows, variant, spec))
    alone("predict", prediction_rows)
    batch, precision = (32, "fp32") if args.tiny else (BASE.batch, BASE.precision)
    name = f"Hugging Face Trainer, finetune, {precision}, batch {batch}"
    alone(name, lambda: [row(name, (result := hugging_face(bench, batch, precision)).rates, result.gigabytes)])
    few = 32 if args.tiny else 64
    team = f"method of the original team, finetune, batch {few}"
    alone(team, lambda: [row(team, (result := original_team(bench, few)).rates, result.gigabytes)])
    for variant, spec in ours:  # last, because compilation can take many minutes
        if variant.compiled:
            add(spec.name, partial(own_rows, variant, spec))
    leave_group()


if __name__ == "__main__":
    main()
