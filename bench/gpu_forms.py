"""What gpu.py (in this folder) measures: our steps and predictions, and two other ways to fine-tune the model."""

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

from model.bert.build import regression_model
from model.bert.frames import reading_frames
from model.config import Config, StageName
from model.distributed.process_group import World
from model.prediction.files import predict_files
from model.prediction.predictor import Predictor
from model.prediction.request import PredictionRequest
from model.training.bench_train import Measurement, forget
from model.training.checkpointing.hf_export import export_model, stock_tokenizer
from model.training.ds_config import read_ds_config
from model.training.throughput import peak_memory
from model.training.timing import Plan, Rates, timed, wait
from pipeline.shards.index import Index, read_index
from pipeline.shards.staleness import shard_folder
from pipeline.stream.stream import Part, Stream

MICRO_BATCH = {"fp16": 4096, "bf16": 4096, "tf32": 2048, "fp32": 2048}
"""Promoters at once. What the paper's model keeps of 4,096 for the way back is 69 GB in fine-tuning with two bytes a
number, 138 GB with four: half of an H200's memory, and too near to all of it."""
TRAINER_MICRO_BATCH = 1024
"""Autocast keeps half as much again; and what four workers hand over of 1,024 fits into the 64 MB of shared memory that
a container has."""
SCALING = {"loss_scale": 0, "initial_scale_power": 16, "loss_scale_window": 1000, "hysteresis": 2, "min_loss_scale": 1}


@dataclass(frozen=True)
class Form:
    """A configuration of ours. precision: fp32, tf32, fp16 or bf16; compiled: torch.compile's backend, or empty."""

    stage: StageName
    precision: str
    zero: int
    batch: int
    compiled: str = ""


@dataclass(frozen=True)
class Setting:
    """Where, and for how many steps."""

    config: Config
    work: Path
    world: World
    plan: Plan
    passes: int
    """Times that a file which `predict` reads holds the promoters."""

    @property
    def index(self) -> Index:
        """Of the shards."""
        return read_index(shard_folder(self.config))


@dataclass(frozen=True)
class Peer:
    """What another way does."""

    rates: Rates
    gigabytes: float


def asked(setting: Setting, form: Form, trace: Path | None = None) -> Measurement:
    """What is measured of a form."""
    values: dict[str, Any] = {"train_micro_batch_size_per_gpu": min(MICRO_BATCH[form.precision], form.batch)}
    values["zero_optimization"] = {"stage": form.zero}
    if form.precision in ("fp16", "bf16"):
        values[form.precision] = {"enabled": True, **(SCALING if form.precision == "fp16" else {})}
    file = setting.work / "ds.json"
    file.write_text(json.dumps(values))
    config = setting.config
    model = config.model.model_copy(update={"tf32": form.precision == "tf32"})
    stage = getattr(config, form.stage).model_copy(update={"global_batch": form.batch})
    config = config.model_copy(update={"model": model, form.stage: stage})
    settings = read_ds_config(file, setting.world.device.type == "cuda")
    return Measurement(config, form.stage, settings, setting.plan, form.compiled, trace)


def begin(device: torch.device) -> None:
    """Forget what the form before has left; no TF32."""
    forget(device)
    if device.type == "cuda":
        torch.set_float32_matmul_precision("highest")


def predicting(setting: Setting) -> tuple[Peer, float]:
    """Predictor, which is fp16 on a GPU, on sequences in memory; and the rate of `predict` from file to file.

    Not as a rank of a group: `predict` would share its rows out.
    """
    config, world, index = setting.config, setting.world, setting.index
    begin(world.device)
    folder = setting.work / "model"
    shutil.rmtree(folder, ignore_errors=True)
    model = regression_model(config, index, None)
    export_model(model, model.state_dict(), config, folder, index.label_mean, index.label_sd)
    text = (setting.work / "rows.tsv").read_text()
    predictor = Predictor(folder)
    lines = text.splitlines()[: 4 * predictor.batch]
    sequences = pa.array([line.partition("\t")[0] for line in lines])

    def step() -> int:
        return len(predictor.predict_usable(sequences))

    rates = timed(step, setting.plan, world.device)
    gigabytes = peak_memory(world.device) / 1e9
    rows, out = setting.work / "rows-many.tsv", setting.work / "predictions.tsv"
    rows.write_text(text * setting.passes)
    done = predict_files(PredictionRequest(folder, [str(rows)], str(out), workers=1))
    assert done is not None
    return Peer(rates, gigabytes), done.rows_per_second


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


def hugging_face(setting: Setting, batch: int, precision: str) -> Peer:
    """The Trainer on a Hugging Face dataset of ready token ids, four worker processes."""
    from datasets import Dataset as Table
    from transformers import Trainer, TrainerCallback, TrainingArguments

    config, world, index = setting.config, setting.world, setting.index
    begin(world.device)
    plan = setting.plan
    number = min(batch * plan.total, index.rows("finetune/train"))  # each epoch, it starts its workers anew
    stream = Stream(shard_folder(config), index, "finetune/train", number, Part())
    (rows,) = next(stream.epoch(0)).micro_batches
    frames = reading_frames(torch.from_numpy(rows.tokens), torch.from_numpy(rows.lengths), index.k)
    labels = ((rows.expression - index.label_mean) / index.label_sd).astype(np.float32)
    table = Table.from_dict({
        "input_ids": list(frames.input_ids.numpy().astype(np.int32)),
        "attention_mask": list(frames.attention_mask.numpy().astype(np.int8)),
        "labels": labels,
    }).with_format("torch")  # fmt: skip
    ends: list[float] = []
    micro_batch = min(TRAINER_MICRO_BATCH, batch)

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            if len(ends) in range(plan.warm_up - 1, plan.total, plan.part):
                wait(world.device)
            ends.append(time.perf_counter())

    arguments = TrainingArguments(
        output_dir=str(setting.work / "trainer"), max_steps=plan.total, learning_rate=1e-4, weight_decay=0.0,
        max_grad_norm=0.0, per_device_train_batch_size=micro_batch, gradient_accumulation_steps=batch // micro_batch,
        optim="adamw_torch_fused", dataloader_drop_last=True, dataloader_persistent_workers=True,
        lr_scheduler_type="constant", logging_strategy="no", save_strategy="no", report_to=[], disable_tqdm=True,
        fp16=precision == "fp16", bf16=precision == "bf16", dataloader_num_workers=4,
        use_cpu=world.device.type == "cpu",
    )  # fmt: skip
    Trainer(
        model=MeanOverFrames(regression_model(config, index, None)), args=arguments, train_dataset=table,
        callbacks=[Clock()],
    ).train()  # fmt: skip
    marks = ends[plan.warm_up - 1 :: plan.part]
    return Peer(Rates.of([plan.part * batch / (b - a) for a, b in pairwise(marks)]), peak_memory(world.device) / 1e9)


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


def original(setting: Setting, batch: int) -> Peer:
    """Tokens made a sample at a time in four DataLoader workers; autocast to fp16, GradScaler, Adam."""
    config, world, index = setting.config, setting.world, setting.index
    begin(world.device)
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

    return Peer(timed(step, setting.plan, world.device), peak_memory(world.device) / 1e9)
