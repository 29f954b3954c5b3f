"""Training on a GPU: promoters a second and utilisation, a row for each configuration, beside other ways to do it.

    python bench/gpu.py                              everything, into bench/gpu.md; some minutes on one GPU
    python bench/gpu.py --trace trace.json           and a profile of three steps of the first row, for chrome://tracing
    python bench/gpu.py --prepare FOLDER             makes promoters and shards only (where DuckDB is) ...
    python bench/gpu.py --data FOLDER                ... and uses them (where the GPU is)
    python bench/gpu.py --tiny                       a small model, few steps, any machine: does it all run?

The paper's model; promoters as `promoter-bert generate` makes them. From a base (eager, ZeRO 1, fp16, 4,096 promoters a
step) one thing is changed at a time. Utilisation is useful operations (model/flops.py) over the rate of plain matrix
products that was measured in the same precision right before. Beside it, fine-tuning with the Hugging Face Trainer, and
as the original team did: tokens made a sample at a time by a tokenizer in DataLoader workers, autocast, GradScaler.
"""

import argparse
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
import yaml
from gpu_forms import Form, Measured, Setting, hugging_face, original, ours, set_precision
from measure import markdown

from model.distributed import start, stop
from model.flops import matmul_rate
from pipeline.config import Config, load_config

HERE = Path(__file__).resolve().parent
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
    settings: dict[str, Any] = {"base": str(HERE.parent / "config.yaml")}
    if tiny:
        settings |= {"model": TINY, "assay": {"flank": 0}}
    settings["dataset"] = {"finetune_valid": 0.01, "finetune_test": 0.01, "top_fraction": 0.5, "pretrain_valid": 0.05}
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    command = str(Path(sys.executable).with_name("promoter-bert"))
    rows = "600" if tiny else "100000"
    for words in (["generate", "rows.tsv", "--rows", rows], ["build", "rows.tsv"], ["shards"]):
        config = [] if words[0] == "generate" else ["--config", "config.yaml"]
        subprocess.run([command, *words, *config], cwd=folder, check=True, stdout=subprocess.DEVNULL)


def attempt(name: str, measure: Callable[[], Measured], rate: float | None) -> list[str]:
    """A row of the table. rate: of plain matrix products, operations a second."""
    try:
        found = measure()
    except torch.OutOfMemoryError:
        return [name, "out of memory", *[""] * (len(HEAD) - 2)]
    except (ImportError, RuntimeError) as error:
        return [name, f"failed: {str(error).splitlines()[0][:80]}", *[""] * (len(HEAD) - 2)]
    counted = found.operations_per_second
    return [
        name,
        f"{found.promoters_per_second:,.0f}",
        f"{found.slowest:,.0f} to {found.fastest:,.0f}",
        f"{counted / 1e12:,.3g}" if counted else "",
        f"{counted / rate:.1%}" if counted and rate else "",
        f"{found.data_wait:.2%}" if found.data_wait is not None else "",
        f"{found.gigabytes:.1f}",
        "" if found.host_waits is None else str(found.host_waits),
    ]


def machine(device: torch.device) -> str:
    """What was measured on."""
    name, driver = platform.processor() or platform.machine(), ""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        driver = f", driver {subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()}"
    return f"{name}{driver}, torch {torch.__version__}, CUDA {torch.version.cuda}, Python {platform.python_version()}"


def main() -> None:
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("--steps", type=int, default=30)
    cli.add_argument("--tiny", action="store_true")
    cli.add_argument("--trace", type=Path)
    cli.add_argument("--prepare", type=Path)
    cli.add_argument("--data", type=Path)
    cli.add_argument("--out", type=Path, default=HERE / "gpu.md")
    args = cli.parse_args()
    if args.prepare:
        args.prepare.mkdir(parents=True, exist_ok=True)
        prepare(args.prepare, args.tiny)
        return
    with tempfile.TemporaryDirectory() as temporary:
        work = args.data or Path(temporary)
        if args.data is None:
            prepare(work, args.tiny)
        config = load_config(
            work / "config.yaml", [f"shards.path={work}/shards", f"dataset.path={work}/dataset.duckdb"]
        )
        measure_all(config, work, args)


def measure_all(config: Config, work: Path, args: argparse.Namespace) -> None:
    """Write the table anew after each row: what was measured stays, whatever ends the rest."""
    world = start()
    setting = Setting(config, work, world, args.steps)
    precisions = ["fp32"] if args.tiny else ["fp16", "bf16", "tf32"]
    rates = {}
    for precision in precisions:
        set_precision(precision)
        rates[precision] = matmul_rate(world.device, "fp32" if precision == "tf32" else precision)
    said = ", ".join(f"{name} {rate / 1e12:,.3g}" for name, rate in rates.items())
    rows: list[list[str]] = []

    def add(row: list[str]) -> None:
        rows.append(row)
        print(" | ".join(row), flush=True)
        command = " ".join(["python bench/gpu.py", *sys.argv[1:]])
        text = f"# Training on one GPU\n\n{machine(world.device)}. `{command}`: {args.steps} steps each, spread over "
        text += f"three parts of them. Plain matrix products, TFLOP/s: {said}.\n\n{markdown(HEAD, rows)}\n"
        args.out.write_text(text)

    for number, form in enumerate(forms(args.tiny)):
        trace = args.trace if number == 0 else None
        add(attempt(form.name, lambda form=form, trace=trace: ours(setting, form, trace), rates[form.precision]))
    batch, precision = (32, "fp32") if args.tiny else (BASE.batch, BASE.precision)
    add(attempt(f"Hugging Face Trainer, finetune, {precision}, batch {batch}",
                lambda: hugging_face(setting, batch, precision), None))  # fmt: skip
    batch = 32 if args.tiny else 64
    add(attempt(f"as the original team did, finetune, batch {batch}", lambda: original(setting, batch), None))
    stop()


if __name__ == "__main__":
    main()
