"""Training on a GPU: promoters a second and utilisation, a row for each configuration, beside other ways to do it.

    python -m bench.training.gpu                              everything, into bench/gpu.md; some minutes on one GPU
    python -m bench.training.gpu --trace trace.json           and a profile of three steps of the first row, for chrome://tracing
    python -m bench.training.gpu --prepare FOLDER             makes promoters and shards only (without a GPU) ...
    python -m bench.training.gpu --data FOLDER                ... and uses them (where the GPU is)
    python -m bench.training.gpu --tiny                       a small model, few steps, any machine: does it all run?

The paper's model; promoters as `promoter-bert generate` makes them. From a base (eager, ZeRO 1, fp16, 4,096 promoters a
step) one thing is changed at a time. Utilisation is useful operations (model/flops.py) over the rate of plain matrix
products that was measured in the same precision right before. Beside it predictions, and fine-tuning with the Hugging
Face Trainer, and as the original team did: tokens made a sample at a time by a tokenizer in DataLoader workers,
autocast, GradScaler. One's own configuration: promoter-bert bench-train.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from unittest.mock import patch

import torch
from bench.training.gpu_contenders import Form, Setting, asked, hugging_face, original, predicting
from bench.measure import markdown

from model.config import Config, load_config
from model.distributed.process_group import start, stop
from bench.training.bench_train import Measured, Measurement, check_trace, made, make_shards, measure
from bench.training.timing import Plan, Rates
from pipeline.errors import UserError
from pipeline.io.atomic import expect_folder
from pipeline.paths import ROOT

BASE = Form("finetune", "fp16", 1, 4096)
TINY = {"hidden": 32, "layers": 2, "heads": 4, "intermediate": 64}
HEAD = ["", "promoters/s", "spread", "TFLOP/s", "of matmul", "data wait", "peak GB", "host waits a step"]


def forms(tiny: bool) -> Iterable[Form]:
    """Each form once, the base first."""
    if tiny:
        return [Form(stage, "fp32", zero, 32, compiled) for stage, zero, compiled in (
            ("finetune", 1, ""), ("pretrain", 1, ""), ("finetune", 0, ""), ("finetune", 1, "aot_eager"),
        )]  # fmt: skip
    found = []
    for stage in ("finetune", "pretrain"):
        base = Form(stage, BASE.precision, BASE.zero, BASE.batch)
        found += [base, Form(stage, "fp16", 1, 4096, "inductor"), Form(stage, "bf16", 1, 4096)]
        found += [Form(stage, "bf16", 1, 4096, "inductor"), Form(stage, "tf32", 1, 4096)]
        found += [Form(stage, "fp16", zero, 4096) for zero in (0, 2, 3)]
        found += [Form(stage, "fp16", 1, batch) for batch in (64, 256, 1024, 2048, 8192)]
    return found


def prepare(folder: Path, tiny: bool) -> None:
    """Promoters as rows and as shards."""
    config = load_config(ROOT / "config.yaml")
    if tiny:
        model, assay = config.model.model_copy(update=TINY), config.assay.model_copy(update={"flank": 0})
        config = config.model_copy(update={"model": model, "assay": assay})
    config = made(config, folder)
    make_shards(config, folder, 600 if tiny else 200_000)
    (folder / "config.json").write_text(config.model_dump_json())


def row(name: str, rates: Rates, gigabytes: float) -> list[str]:
    """The columns that every way to train has."""
    return [
        name,
        f"{rates.middle:,.0f}",
        f"{rates.slowest:,.0f} to {rates.fastest:,.0f}",
        "",
        "",
        "",
        f"{gigabytes:.1f}",
        "",
    ]


def row_of_ours(found: Measured) -> list[str]:
    """All columns."""
    columns = row(found.name, Rates(found.promoters_per_second, found.slowest, found.fastest), found.gigabytes)
    columns[3:6] = f"{found.operations_per_second / 1e12:,.3g}", f"{found.utilisation:.1%}", f"{found.data_wait:.2%}"
    columns[7] = "" if found.host_waits is None else str(found.host_waits)
    return columns


def attempt(name: str, found: Callable[[], list[list[str]]]) -> list[list[str]]:
    """Rows of the table; where they cannot be had, one that says why. Whatever it is: the other rows are wanted."""
    try:
        return found()
    except torch.OutOfMemoryError:
        why = "out of memory"
    except Exception as error:
        traceback.print_exc()
        line = next(iter(str(error).splitlines()), "") or type(error).__name__
        why = f"failed: {line[:80].replace('|', '/')}"
    return [[name, why, *[""] * (len(HEAD) - 2)]]


def machine(device: torch.device) -> str:
    """What was measured on."""
    name, driver = platform.processor() or platform.machine(), ""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        driver = f", driver {driver_version()}"
    return f"{name}{driver}, torch {torch.__version__}, CUDA {torch.version.cuda}, Python {platform.python_version()}"


def driver_version() -> str:
    """Of the GPUs; a container may lack the program that knows it."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return said.partition("\n")[0].strip()


def main() -> None:
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("--steps", type=int, default=30)
    cli.add_argument("--tiny", action="store_true")
    cli.add_argument("--trace", type=Path)
    cli.add_argument("--prepare", type=Path)
    cli.add_argument("--data", type=Path)
    cli.add_argument("--out", type=Path, default=ROOT / "bench/gpu.md")
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
        # Prepared elsewhere, its files had other places.
        config = made(Config.model_validate_json((work / "config.json").read_text()), work)
        measure_all(config, work, args)


def measure_all(config: Config, work: Path, args: argparse.Namespace) -> None:
    """Write the table anew after each row: what was measured stays, whatever ends the rest."""
    rates: dict[str, float] = {}
    rows: list[list[str]] = []

    def add(name: str, found: Callable[[], list[list[str]]]) -> None:
        for each in attempt(name, found):
            rows.append(each)
            print(" | ".join(each), flush=True)
        command = " ".join(["python -m bench.training.gpu", *sys.argv[1:]])
        matmul = ", ".join(f"{precision} {rate / 1e12:,.3g}" for precision, rate in rates.items())
        text = f"# Training on one GPU\n\n{machine(setting.world.device)}. `{command}`: {args.steps} steps each, "
        text += (
            f"spread over three parts of them. Plain matrix products, TFLOP/s: {matmul}.\n\n{markdown(HEAD, rows)}\n"
        )
        args.out.write_text(text)

    def of_form(form: Form, measurement: Measurement) -> list[list[str]]:
        found = measure(measurement, setting.world)
        rates[form.precision] = found.matmul_per_second
        return [row_of_ours(found)]

    def of_predictions() -> list[list[str]]:
        found, whole = predicting(setting)
        how = "fp16" if setting.world.device.type == "cuda" else "fp32"
        from_file = [f"predict, {how}, from file to file", f"{whole:,.0f}", *[""] * (len(HEAD) - 2)]
        return [row(f"predict, {how}, sequences in memory", found.rates, found.gigabytes), from_file]

    before = dict(os.environ)
    plan = Plan(2 if args.tiny else 8, args.steps)
    setting = Setting(config, work, start(), plan, 2 if args.tiny else 10)

    def alone(name: str, found: Callable[[], list[list[str]]]) -> None:
        # Without the group of one that DeepSpeed wants: as its rank, predict and the Trainer would work otherwise.
        with patch.dict(os.environ, before, clear=True):
            add(name, found)

    ours = [
        (form, asked(setting, form, args.trace if number == 0 else None))
        for number, form in enumerate(forms(args.tiny))
    ]
    for form, one in ours:
        if not form.compiled:
            add(one.name, lambda form=form, one=one: of_form(form, one))
    alone("predict", of_predictions)
    batch, precision = (32, "fp32") if args.tiny else (BASE.batch, BASE.precision)
    name = f"Hugging Face Trainer, finetune, {precision}, batch {batch}"
    alone(name, lambda: [row(name, (found := hugging_face(setting, batch, precision)).rates, found.gigabytes)])
    few = 32 if args.tiny else 64
    team = f"as the original team did, finetune, batch {few}"
    alone(team, lambda: [row(team, (found := original(setting, few)).rates, found.gigabytes)])
    for form, one in ours:  # last, as a compiler may take minutes, or more than that
        if form.compiled:
            add(one.name, lambda form=form, one=one: of_form(form, one))
    stop()


if __name__ == "__main__":
    main()
