"""What gpu.py (in this folder) measures: our training step, and two other ways to fine-tune the same model."""

import gc
import json
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import chain, pairwise, repeat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from model.bert import masked_language_model, regression_model
from model.distributed import World
from model.engine import make_engine, make_optimizer, read_ds_config
from model.export import stock_tokenizer
from model.flops import stage_cost
from model.frames import reading_frames
from model.loop import train_step
from model.meter import peak_memory
from model.tasks import FinetuneTask, PretrainTask
from pipeline.config import Config
from pipeline.freshness import shard_folder
from pipeline.index import Index, read_index
from pipeline.stream import Part, Step, Stream

WARM_UP = 8
"""Steps before the clock starts: caches fill, and what is compiled is compiled for its second shape."""
PARTS = 3
"""Parts of the measured steps that the spread is taken over."""
MICRO_BATCH = 4096
SCALING = {"loss_scale": 0, "initial_scale_power": 16, "loss_scale_window": 1000, "hysteresis": 2, "min_loss_scale": 1}


@dataclass(frozen=True)
class Form:
    """A configuration of ours. precision: fp32, tf32, fp16 or bf16; compiled: torch.compile's backend, or empty."""

    stage: str
    precision: str
    zero: int
    batch: int
    compiled: str = ""

    @property
    def name(self) -> str:
        """What its row is called."""
        return f"{self.stage}, {self.precision}, ZeRO {self.zero}, batch {self.batch}, {self.compiled or 'eager'}"


@dataclass(frozen=True)
class Setting:
    """Where, and for how many steps."""

    config: Config
    work: Path
    world: World
    steps: int

    @property
    def index(self) -> Index:
        """Of the shards."""
        return read_index(shard_folder(self.config))


@dataclass(frozen=True)
class Measured:
    """promoters_per_second: median of the parts. host_waits: places in a step where the host waits for the GPU."""

    promoters_per_second: float
    slowest: float
    fastest: float
    gigabytes: float
    operations_per_second: float = 0.0
    data_wait: float | None = None
    host_waits: int | None = None


def set_precision(precision: str) -> None:
    """TF32 or not for matrix products in float32; on a CPU nothing changes."""
    if torch.cuda.is_available():
        torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")


def timed(step: Callable[[], int], steps: int, device: torch.device) -> list[float]:
    """Promoters a second in each part of the steps. The host waits for the device at the ends of the parts only."""
    rates = []
    for _ in range(WARM_UP):
        step()
    for _ in range(PARTS):
        wait(device)
        began, promoters = time.perf_counter(), 0
        for _ in range(max(steps // PARTS, 1)):
            promoters += step()
        wait(device)
        rates.append(promoters / (time.perf_counter() - began))
    return rates


def wait(device: torch.device) -> None:
    """For all that was given to the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def fresh(device: torch.device) -> None:
    """Forget what the form before has left."""
    gc.collect()
    torch._dynamo.reset()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


class Sums:
    """In the meter's place: sums that stay on the device."""

    def __init__(self, device: torch.device) -> None:
        self.sums = torch.zeros(3, dtype=torch.float64, device=device)

    def add(self, loss: torch.Tensor, count: torch.Tensor, correct: torch.Tensor) -> None:
        """A micro-batch."""
        self.sums += torch.stack([loss.double(), count.double(), correct.double()])

    def add_step(self, step: Step) -> None:
        """A step."""


def ours(setting: Setting, form: Form, trace: Path | None = None) -> Measured:
    """The training loop's own step on the training split's own stream."""
    config, world, index = setting.config, setting.world, setting.index
    fresh(world.device)
    set_precision(form.precision)
    values: dict[str, Any] = {"train_micro_batch_size_per_gpu": min(MICRO_BATCH, form.batch)}
    values["zero_optimization"] = {"stage": form.zero}
    if form.precision in ("fp16", "bf16"):
        values[form.precision] = {"enabled": True, **(SCALING if form.precision == "fp16" else {})}
    (setting.work / "ds.json").write_text(json.dumps(values))
    settings = read_ds_config(setting.work / "ds.json", world.device.type == "cuda")
    torch.manual_seed(0)
    task: PretrainTask | FinetuneTask
    if form.stage == "pretrain":
        task = PretrainTask(masked_language_model(config, index), index.k, config.pretrain.mask_share)
    else:
        task = FinetuneTask(regression_model(config, index, None), index.k, index.label_mean, index.label_sd)
    stage = config.pretrain if form.stage == "pretrain" else config.finetune
    plan = settings.plan(form.batch, world.ranks)
    engine = make_engine(task, make_optimizer(task, stage, form.stage == "pretrain"), settings, plan, world)
    if form.compiled:
        engine.compile(backend=form.compiled)
    engine.train()
    run = SimpleNamespace(engine=engine, world=world, run=config.run, name=form.stage, plan=plan)
    part = Part(world.rank, world.ranks, plan.micro_batches)
    stream = Stream(shard_folder(config), index, f"{form.stage}/train", form.batch, part)
    steps = full_steps(stream, form.batch)
    sums, cost = Sums(world.device), stage_cost(config, index, form.stage)
    waited, operations = [0.0], [0.0]

    def step() -> int:
        asked = time.perf_counter()
        given = next(steps)
        waited[0] += time.perf_counter() - asked
        operations[0] += cost.of(given.micro_batches[0].global_lengths)[1]
        train_step(run, given, sums)  # type: ignore[arg-type]
        return given.micro_batches[0].global_rows

    began = time.perf_counter()
    rates = timed(step, setting.steps, world.device)
    promoters = form.batch * (WARM_UP + PARTS * max(setting.steps // PARTS, 1))
    data_wait = waited[0] / (time.perf_counter() - began)
    found = measured(rates, world.device, operations[0] / promoters, data_wait, host_waits(step, world.device))
    if trace is not None:
        profile(step, trace)
    steps.close()
    engine.destroy()
    return found


def full_steps(stream: Stream, batch: int) -> Any:
    """Steps of whole global batches, epoch after epoch. Raises RuntimeError where the split holds none."""
    if stream.rows < batch:
        raise RuntimeError(f"the split holds {stream.rows:,} promoters only")
    for epoch in range(10**9):
        yield from (step for step in stream.epoch(epoch) if step.micro_batches[0].global_rows == batch)


def measured(
    rates: list[float], device: torch.device, operations: float = 0.0, data_wait: float | None = None,
    waits: int | None = None,
) -> Measured:  # fmt: skip
    """operations: of a promoter."""
    middle = statistics.median(rates)
    memory = peak_memory(device) / 1e9
    return Measured(middle, min(rates), max(rates), memory, middle * operations, data_wait, waits)


def host_waits(step: Callable[[], int], device: torch.device) -> int | None:
    """Places in a step where the host waits for the GPU, as torch sees them; None on a CPU."""
    if device.type != "cuda":
        return None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        step()
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing" in str(warning.message) for warning in caught)


def profile(step: Callable[[], int], trace: Path) -> None:
    """Three steps for chrome://tracing, and the longest operations beside them."""
    with torch.profiler.profile() as profiler:
        for _ in range(3):
            step()
    profiler.export_chrome_trace(str(trace))
    order = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
    trace.with_suffix(".txt").write_text(profiler.key_averages().table(sort_by=order, row_limit=40))


class MeanOverFrames(torch.nn.Module):
    """Stock BERT as a Trainer takes it: the mean over the frames of a promoter, and its loss."""

    def __init__(self, bert: torch.nn.Module) -> None:
        super().__init__()
        self.bert = bert

    def forward(self, input_ids, attention_mask, labels):  # type: ignore[no-untyped-def]
        """(rows, frames, columns) twice, (rows,)."""
        flat = self.bert(input_ids=input_ids.flatten(0, 1), attention_mask=attention_mask.flatten(0, 1)).logits
        found = flat.float().view(len(input_ids), -1).mean(1)
        return {"loss": torch.nn.functional.mse_loss(found, labels), "logits": found}


def hugging_face(setting: Setting, batch: int, precision: str) -> Measured:
    """The Trainer on a Hugging Face dataset of ready token ids, four worker processes."""
    from datasets import Dataset as Table
    from transformers import Trainer, TrainerCallback, TrainingArguments

    config, world, index = setting.config, setting.world, setting.index
    fresh(world.device)
    set_precision(precision)
    stream = Stream(shard_folder(config), index, "finetune/train", min(batch * 4, index.rows("finetune/train")), Part())
    (rows,) = next(stream.epoch(0)).micro_batches
    frames = reading_frames(torch.from_numpy(rows.tokens), torch.from_numpy(rows.lengths), index.k)
    labels = ((rows.expression - index.label_mean) / index.label_sd).astype(np.float32)
    table = Table.from_dict({
        "input_ids": list(frames.input_ids.numpy().astype(np.int32)),
        "attention_mask": list(frames.attention_mask.numpy().astype(np.int8)),
        "labels": labels,
    }).with_format("torch")  # fmt: skip
    ends: list[float] = []
    steps = WARM_UP + PARTS * max(setting.steps // PARTS, 1)

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            if len(ends) in range(WARM_UP - 1, steps, max(setting.steps // PARTS, 1)):
                wait(world.device)
            ends.append(time.perf_counter())

    arguments = TrainingArguments(
        output_dir=str(setting.work / "trainer"), max_steps=steps, learning_rate=1e-4, weight_decay=0.0,
        max_grad_norm=0.0, per_device_train_batch_size=batch, optim="adamw_torch_fused", dataloader_drop_last=True,
        lr_scheduler_type="constant", logging_strategy="no", save_strategy="no", report_to=[], disable_tqdm=True,
        fp16=precision == "fp16", bf16=precision == "bf16", dataloader_num_workers=4,
        use_cpu=world.device.type == "cpu",
    )  # fmt: skip
    Trainer(
        model=MeanOverFrames(regression_model(config, index, None)), args=arguments, train_dataset=table,
        callbacks=[Clock()],
    ).train()  # fmt: skip
    size = max(setting.steps // PARTS, 1)
    marks = ends[WARM_UP - 1 :: size]
    return measured([size * batch / (b - a) for a, b in pairwise(marks)], world.device)


class Samples(Dataset):  # type: ignore[type-arg]
    """A promoter at a time: its text cut into frames and tokenized, padded to the longest there is."""

    def __init__(self, config: Config, file: Path, rows: int) -> None:
        lines = [line.split("\t") for line, _ in zip(file.open(), range(rows), strict=False)]
        self.config, self.k = config, config.shards.k
        self.texts, self.labels = [text for text, _ in lines], [float(label) for _, label in lines]
        self.tokenizer = stock_tokenizer(config)
        insert = max(map(len, self.texts)) - len(config.assay.left_adapter) - len(config.assay.right_adapter)
        self.longest = (insert + 2 * config.assay.flank) // self.k + 2

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        extended = self.tokenizer.backend_tokenizer.normalizer.normalize_str(self.texts[number])
        frames = self.tokenizer(
            [extended[frame:] for frame in range(self.k)], padding="max_length", max_length=self.longest,
            truncation=True, return_tensors="pt",
        )  # fmt: skip
        label = torch.tensor(self.labels[number], dtype=torch.float32)
        return {"input_ids": frames["input_ids"], "attention_mask": frames["attention_mask"], "labels": label}


def original(setting: Setting, batch: int) -> Measured:
    """Tokens made a sample at a time in four DataLoader workers; autocast to fp16, GradScaler, Adam."""
    config, world, index = setting.config, setting.world, setting.index
    fresh(world.device)
    set_precision("fp32")
    cuda = world.device.type == "cuda"
    samples = Samples(config, setting.work / "rows.tsv", 20_000)
    loader = DataLoader(samples, batch, shuffle=True, num_workers=4, pin_memory=cuda, drop_last=True)
    model = MeanOverFrames(regression_model(config, index, None)).to(world.device).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    scaler = torch.amp.GradScaler(enabled=cuda)
    batches: Iterator[dict[str, torch.Tensor]] = chain.from_iterable(repeat(loader))

    def step() -> int:
        given = {name: value.to(world.device) for name, value in next(batches).items()}
        optimizer.zero_grad()
        with torch.autocast("cuda", torch.float16) if cuda else nullcontext():
            loss = model(**given)["loss"]
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        loss.item()  # as for a progress bar
        return batch

    return measured(timed(step, setting.steps, world.device), world.device)
