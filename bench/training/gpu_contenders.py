"""Contenders of gpu.py: our own steps and predictions, and two other ways to fine-tune the model."""

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import chain, pairwise, repeat
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch.utils.data import DataLoader, Dataset

from bench.training.bench_train import MeasurementSpec, free_memory
from bench.training.timing import Rates, StepPlan, synchronize, time_steps
from model.bert.build import build_regression_model
from model.bert.frames import cut_reading_frames
from model.config import Config, StageName
from model.distributed.process_group import World
from model.prediction.files import predict_files
from model.prediction.predictor import Predictor
from model.prediction.request import PredictionRequest
from model.training.checkpointing.hf_export import build_stock_tokenizer, export_model
from model.training.ds_config import read_ds_config
from model.training.throughput import measure_peak_memory
from pipeline.shards.index import Index, read_index
from pipeline.shards.location import shard_folder
from pipeline.stream.stream import RankSlice, ShardStream

MICRO_BATCH = {"fp16": 4096, "bf16": 4096, "tf32": 2048, "fp32": 2048}
"""Precision -> promoters per micro-batch. In fine-tuning, the activations of 4,096 promoters take 69 GB in 16 bits and
138 GB in 32 bits; an H200 has 141 GB."""
TRAINER_MICRO_BATCH = 1024
"""Promoters per micro-batch of the Trainer: autocast needs 1.5 times the memory, and batches of four workers must fit
into the 64 MB of shared memory of a container."""
SCALING = {"loss_scale": 0, "initial_scale_power": 16, "loss_scale_window": 1000, "hysteresis": 2, "min_loss_scale": 1}


@dataclass(frozen=True)
class Variant:
    """One of our configurations.

    precision: fp32, tf32, fp16 or bf16. zero: ZeRO stage. batch: promoters per step. compiled: backend of
    torch.compile, or empty.
    """

    stage: StageName
    precision: str
    zero: int
    batch: int
    compiled: str = ""


@dataclass(frozen=True)
class Bench:
    """Data, process group and number of steps of all measurements."""

    config: Config
    work: Path
    world: World
    plan: StepPlan
    passes: int
    """Copies of the promoters in the file that `predict` reads."""

    @property
    def index(self) -> Index:
        """Return the index of the shards."""
        return read_index(shard_folder(self.config))


@dataclass(frozen=True)
class Peer:
    """Rates and peak memory in GB of a contender."""

    rates: Rates
    gigabytes: float


def spec_of(bench: Bench, variant: Variant, trace: Path | None = None) -> MeasurementSpec:
    """Return the specification of a variant's measurement."""
    values: dict[str, Any] = {"train_micro_batch_size_per_gpu": min(MICRO_BATCH[variant.precision], variant.batch)}
    values["zero_optimization"] = {"stage": variant.zero}
    if variant.precision in ("fp16", "bf16"):
        values[variant.precision] = {"enabled": True, **(SCALING if variant.precision == "fp16" else {})}
    file = bench.work / "ds.json"
    file.write_text(json.dumps(values))
    config = bench.config
    model = config.model.model_copy(update={"tf32": variant.precision == "tf32"})
    stage = getattr(config, variant.stage).model_copy(update={"global_batch": variant.batch})
    config = config.model_copy(update={"model": model, variant.stage: stage})
    settings = read_ds_config(file, bench.world.device.type == "cuda")
    return MeasurementSpec(config, variant.stage, settings, bench.plan, variant.compiled, trace)


def reset(device: torch.device) -> None:
    """Free the memory of the previous measurement, and switch TF32 off."""
    free_memory(device)
    if device.type == "cuda":
        torch.set_float32_matmul_precision("highest")


def prediction(bench: Bench) -> tuple[Peer, float]:
    """Measure Predictor (fp16 on a GPU) on sequences in memory, and `predict` from file to file.

    Returns the first with its memory, and promoters per second of the second. Call it outside a process group, in which
    `predict` partitions its rows.
    """
    config, world, index = bench.config, bench.world, bench.index
    reset(world.device)
    folder = bench.work / "model"
    shutil.rmtree(folder, ignore_errors=True)
    model = build_regression_model(config, index, None)
    export_model(model, model.state_dict(), config, index, folder)
    text = (bench.work / "rows.tsv").read_text()
    predictor = Predictor(folder)
    lines = text.splitlines()[: 4 * predictor.batch]
    sequences = pa.array([line.partition("\t")[0] for line in lines])

    def step() -> int:
        return len(predictor.predict_valid(sequences))

    rates = time_steps(step, bench.plan, world.device)
    gigabytes = measure_peak_memory(world.device) / 1e9
    rows, out = bench.work / "rows-many.tsv", bench.work / "predictions.tsv"
    rows.write_text(text * bench.passes)
    result = predict_files(PredictionRequest(folder, [str(rows)], str(out), workers=1))
    assert result is not None
    return Peer(rates, gigabytes), result.rows_per_second


class MeanOverFrames(torch.nn.Module):
    """BERT of transformers for a Trainer: mean over a promoter's reading frames, and its loss."""

    def __init__(self, bert: torch.nn.Module) -> None:
        super().__init__()
        self.bert = bert

    def forward(self, input_ids, attention_mask, labels):  # type: ignore[no-untyped-def]
        """Return loss and predictions. Shapes: input_ids, attention_mask (rows, frames, columns); labels (rows,)."""
        flat = self.bert(input_ids=input_ids.flatten(0, 1), attention_mask=attention_mask.flatten(0, 1)).logits
        predictions = flat.float().view(len(input_ids), -1).mean(1)
        return {"loss": torch.nn.functional.mse_loss(predictions, labels), "logits": predictions}


def hugging_face(bench: Bench, batch: int, precision: str) -> Peer:
    """Measure the Trainer on a Hugging Face dataset of token ids, with four worker processes."""
    from datasets import Dataset as Table
    from transformers import Trainer, TrainerCallback, TrainingArguments

    config, world, index = bench.config, bench.world, bench.index
    reset(world.device)
    plan = bench.plan
    number = min(batch * plan.total, index.rows("finetune/train"))  # one epoch, because it restarts its workers in each
    stream = ShardStream(shard_folder(config), index, "finetune/train", number, RankSlice())
    (rows,) = next(stream.epoch(0)).micro_batches
    frames = cut_reading_frames(torch.from_numpy(rows.tokens), torch.from_numpy(rows.lengths), index.k)
    labels = ((rows.expression - index.label_mean) / index.label_sd).astype(np.float32)
    table = Table.from_dict({
        "input_ids": list(frames.input_ids.numpy().astype(np.int32)),
        "attention_mask": list(frames.attention_mask.numpy().astype(np.int8)),
        "labels": labels,
    }).with_format("torch")  # fmt: skip
    ends: list[float] = []
    micro_batch = min(TRAINER_MICRO_BATCH, batch)

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            if len(ends) in range(plan.warm_up - 1, plan.total, plan.part):
                synchronize(world.device)
            ends.append(time.perf_counter())

    arguments = TrainingArguments(
        output_dir=str(bench.work / "trainer"), max_steps=plan.total, learning_rate=1e-4, weight_decay=0.0,
        max_grad_norm=0.0, per_device_train_batch_size=micro_batch, gradient_accumulation_steps=batch // micro_batch,
        optim="adamw_torch_fused", dataloader_drop_last=True, dataloader_persistent_workers=True,
        lr_scheduler_type="constant", logging_strategy="no", save_strategy="no", report_to=[], disable_tqdm=True,
        fp16=precision == "fp16", bf16=precision == "bf16", dataloader_num_workers=4,
        use_cpu=world.device.type == "cpu",
    )  # fmt: skip
    Trainer(
        model=MeanOverFrames(build_regression_model(config, index, None)), args=arguments, train_dataset=table,
        callbacks=[Clock()],
    ).train()  # fmt: skip
    marks = ends[plan.warm_up - 1 :: plan.part]
    rates = Rates.of([plan.part * batch / (b - a) for a, b in pairwise(marks)])
    return Peer(rates, measure_peak_memory(world.device) / 1e9)


class Samples(Dataset):  # type: ignore[type-arg]
    """Dataset of single promoters: text split into reading frames, tokenized, padded to the longest promoter."""

    def __init__(self, config: Config, file: Path, rows: int) -> None:
        lines = [line.split("\t") for line, _ in zip(file.open(), range(rows), strict=False)]
        self.config, self.k = config, config.shards.k
        self.texts, self.labels = [text for text, _ in lines], [float(label) for _, label in lines]
        self.tokenizer = build_stock_tokenizer(config)
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


def original_team(bench: Bench, batch: int) -> Peer:
    """Measure fine-tuning with tokenization per sample in four DataLoader workers, autocast, GradScaler and Adam."""
    config, world, index = bench.config, bench.world, bench.index
    reset(world.device)
    cuda = world.device.type == "cuda"
    samples = Samples(config, bench.work / "rows.tsv", 20_000)
    loader = DataLoader(samples, batch, shuffle=True, num_workers=4, pin_memory=cuda, drop_last=True)
    model = MeanOverFrames(build_regression_model(config, index, None)).to(world.device).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    scaler = torch.amp.GradScaler(enabled=cuda)
    batches: Iterator[dict[str, torch.Tensor]] = chain.from_iterable(repeat(loader))

    def step() -> int:
        inputs = {name: value.to(world.device) for name, value in next(batches).items()}
        optimizer.zero_grad()
        with torch.autocast("cuda", torch.float16) if cuda else nullcontext():
            loss = model(**inputs)["loss"]
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        loss.item()  # a host wait per step, as for a progress bar
        return batch

    return Peer(time_steps(step, bench.plan, world.device), measure_peak_memory(world.device) / 1e9)
