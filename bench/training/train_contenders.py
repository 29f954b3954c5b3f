"""Contenders of bench.training.train: train_contenders NAME FOLDER, in each process of torchrun.

Rank 0 prints JSON: promoters_per_second and promoters_per_cpu_second, from step 11; first_step, in seconds from the
start of the process to the end of the first step; gigabytes, the peak resident memory of the process.
"""

import json
import os
import resource
import runpy
import sys
import time
from pathlib import Path

import psutil

from pipeline.paths import ROOT

PROCESS_START = psutil.Process().create_time()
WARM_UP = 10
"""Steps before the measured ones."""
STEPS, BATCH = 45, 64


def read_clocks() -> tuple[float, float]:
    """Return the time, and the CPU time of this process, in seconds."""
    return time.time(), time.process_time()


def report(ends: list[tuple[float, float]], promoters: int) -> None:
    """Print the rates, assuming equal CPU time of all ranks.

    ends: read_clocks() after each step; promoters: per step.
    """
    if os.environ.get("RANK", "0") == "0":
        total = (len(ends) - WARM_UP) * promoters
        clock, cpu = (last - first for first, last in zip(ends[WARM_UP - 1], ends[-1], strict=True))
        result = {
            "promoters_per_second": total / clock,
            "promoters_per_cpu_second": total / cpu / int(os.environ.get("WORLD_SIZE", "1")),
            "first_step": ends[0][0] - PROCESS_START,
            "gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
        }
        print(json.dumps(result), flush=True)


def ours(work: Path) -> None:
    """Run train.py; a step ends when the next one is requested."""
    os.chdir(work)
    from pipeline.stream.stream import ShardStream

    ends: list[tuple[float, float]] = []
    epoch = ShardStream.epoch

    def timed_epoch(self, number, consumed=0):  # type: ignore[no-untyped-def]
        for count, step in enumerate(epoch(self, number, consumed)):
            if self.split == "finetune/train" and 0 < count <= STEPS:
                ends.append(read_clocks())
            yield step

    ShardStream.epoch = timed_epoch  # type: ignore[method-assign]
    name = f"run.name=bench-{os.environ['TORCHELASTIC_RUN_ID']}"
    sys.argv = ["train.py", "--config", "bench.yaml", "--deepspeed_config", str(ROOT / "ds_config.json"), name]
    runpy.run_path(str(ROOT / "train.py"), run_name="__main__")
    report(ends, BATCH)


def trainer(work: Path) -> None:
    """Run the Hugging Face Trainer, distributed by torchrun's environment variables."""
    import numpy as np
    import torch
    from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainerCallback, TrainingArguments
    from transformers.utils import logging

    logging.set_verbosity_error()
    arrays = np.load(work / "ready.npz")
    ids, mask = torch.from_numpy(arrays["ids"]), torch.from_numpy(arrays["mask"])
    labels = torch.from_numpy(arrays["labels"]).float()
    ends: list[tuple[float, float]] = []

    class MeanOverFrames(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            size = BertConfig(
                vocab_size=130, hidden_size=128, num_hidden_layers=2, num_attention_heads=4, intermediate_size=512,
                max_position_embeddings=512, num_labels=1, problem_type="regression",
            )  # fmt: skip
            self.bert = BertForSequenceClassification(size)

        def forward(self, input_ids, attention_mask, labels):  # type: ignore[no-untyped-def]
            flat = self.bert(input_ids=input_ids.flatten(0, 1), attention_mask=attention_mask.flatten(0, 1)).logits
            predictions = flat.view(len(input_ids), -1).mean(1)
            return {"loss": torch.nn.functional.mse_loss(predictions, labels), "logits": predictions}

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_, **__):  # type: ignore[no-untyped-def]
            ends.append(read_clocks())

    def collate(rows):  # type: ignore[no-untyped-def]
        rows = torch.tensor(rows)
        width = int(mask[rows].sum(-1).max())  # pad to the longest row of the batch
        return {"input_ids": ids[rows][..., :width], "attention_mask": mask[rows][..., :width], "labels": labels[rows]}

    arguments = TrainingArguments(
        output_dir=str(work / "trainer"), max_steps=STEPS, learning_rate=1e-4, weight_decay=0.0, max_grad_norm=0.0,
        per_device_train_batch_size=BATCH // int(os.environ.get("WORLD_SIZE", "1")), optim="adamw_torch_fused",
        lr_scheduler_type="constant", logging_strategy="no", save_strategy="no", report_to=[], disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
    )  # fmt: skip
    Trainer(
        model=MeanOverFrames(), args=arguments, train_dataset=list(range(len(ids))), data_collator=collate,
        callbacks=[Clock()],
    ).train()  # fmt: skip
    report(ends, BATCH)


if __name__ == "__main__":
    {"ours": ours, "trainer": trainer}[sys.argv[1]](Path(sys.argv[2]))
