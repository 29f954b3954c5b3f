"""Write first losses and exported weights at each ZeRO stage and precision as JSON.

Run by test_zero_and_precision.py on several ranks.

ZeRO 1 and 3 are also compiled, with a backend that generates no code, which would take minutes.

DeepSpeed rejects fp16 on a CPU. Its check is patched here, so that loss scaling runs as on a GPU.
"""

import gc
import itertools
import json
import sys
from pathlib import Path

import torch
from deepspeed.accelerator import get_accelerator

from model.bert.build import build_task
from model.bert.device_batch import batch_to_device
from model.config import Config
from model.distributed.process_group import init_group, leave_group, sum_over_ranks
from model.muon.compilation import torch_compile
from model.training.checkpointing.hf_export import gather_weights
from model.training.ds_config import read_ds_config
from model.training.engine import start_engine
from pipeline.errors import UserError
from pipeline.shards.index import read_index
from pipeline.shards.location import shard_folder
from pipeline.stream.stream import RankSlice, ShardStream

STEPS, COMPILED_STEPS = 20, 5
COMPILED = (1, 3)
"""ZeRO stages; 0 and 2 have the hooks of 1."""
PRECISIONS = {
    "fp32": {},
    "bf16": {"bf16": {"enabled": True}},
    "fp16": {"fp16": {"enabled": True, "loss_scale": 0, "initial_scale_power": 12, "hysteresis": 1}},
}

REFUSED = {(0, "fp16")}
"""ZeRO stage and precision that read_ds_config refuses."""


def first_losses(config, world, zero, precision, compiled=False, **stage_settings):
    """Train some steps.

    Returns losses, skipped steps, loss scale, the error, if any, waits for the device, backward passes that DeepSpeed
    prepared, micro-batches, and the exported matrices that hold no more than half precision or do not round to those of
    the model.
    """
    file = Path(f"ds-{world.rank}.json")
    zero_optimization = {"stage": zero, **({"stage3_param_persistence_threshold": 0} if zero == 3 else {})}
    file.write_text(
        json.dumps(
            {"train_micro_batch_size_per_gpu": 8, "zero_optimization": zero_optimization, **PRECISIONS[precision]}
        )
    )
    settings = read_ds_config(file, cuda=True)
    index = read_index(shard_folder(config))
    torch.manual_seed(1)
    stage = config.finetune.model_copy(update=stage_settings)
    engine = start_engine("finetune", stage, build_task(config, index, "finetune"), settings, world, config.run.seed)
    if compiled:
        torch._dynamo.reset()
        engine.compile("aot_eager")
    engine.deepspeed.train()
    stream = ShardStream(
        shard_folder(config), index, "finetune/train", stage.global_batch,
        RankSlice(world.rank, world.ranks, engine.plan.micro_batches), seed=0,
    )  # fmt: skip
    losses = []
    gc.collect()  # earlier engines wait for the device when they are deleted
    problem, waits, prologues = "", [], []
    prepare_backward = engine.deepspeed._backward_prologue
    engine.deepspeed._backward_prologue = lambda: (prologues.append(1), prepare_backward())
    accelerator = type(get_accelerator())
    accelerator.synchronize = lambda *_: waits.append(1)
    try:
        for step in itertools.islice(stream.epoch(0), COMPILED_STEPS if compiled else STEPS):
            sums = torch.zeros(3, dtype=torch.float64)
            engine.train_step(step, sums)
            loss, count, _ = sum_over_ranks(*sums)
            losses.append(loss / count)
    except UserError as error:
        problem = str(error)
    results = {
        "losses": losses,
        "skipped": engine.skipped_steps,
        "scale": engine.loss_scale,
        "problem": problem,
        "waits": len(waits),
        "prologues": len(prologues),
        "micro_batches": len(losses) * engine.plan.micro_batches,
        "predictions": predict(engine, next(stream.epoch(1)).micro_batches[0]),
        **({} if problem else compare_exported(engine)),
    }
    engine.deepspeed.destroy()
    return results


def predict(engine, batch):
    """Predictions of a micro-batch, as in an evaluation during training."""
    width = engine.task.choose_width(batch, engine.world.device)
    engine.deepspeed.eval()
    with torch.inference_mode():
        return engine.deepspeed(batch_to_device(batch, width, None, engine.world.device)).prediction.tolist()


def compare_exported(engine):
    """Compare the exported weights with their rounding to half precision, and with the model that was trained."""
    weights = gather_weights(engine)
    matrices = {name: weight for name, weight in weights.items() if weight.dim() == 2}
    halves = torch.float16, torch.bfloat16
    rounded = [n for n, w in matrices.items() if any(torch.equal(w.to(half).float(), w) for half in halves)]
    whole = {n: p for n, p in engine.task.model.named_parameters() if n in weights and p.shape == weights[n].shape}
    differing = [n for n, p in whole.items() if not torch.equal(weights[n].to(p.dtype), p)]
    return {"matrices": len(matrices), "rounded": rounded, "whole": len(whole), "differing": differing}


def main():
    config = Config.model_validate_json(Path(sys.argv[1]).read_text())
    world = init_group()
    type(get_accelerator()).is_fp16_supported = lambda _: True
    matrix = [(zero, p) for zero in range(4) for p in PRECISIONS if (zero, p) not in REFUSED]
    with torch_compile(False):
        results = {f"{zero} {p}": first_losses(config, world, zero, p) for zero, p in matrix}
        results |= {f"{z} {p} muon": first_losses(config, world, z, p, optimizer="muon") for z, p in matrix if z < 3}
    results |= {f"{zero} compiled": first_losses(config, world, zero, "fp32", compiled=True) for zero in COMPILED}
    results["overflow"] = first_losses(config, world, 1, "fp16", learning_rate=1e20)
    if world.is_rank0:
        Path("results.json").write_text(json.dumps(results))
    leave_group()


if __name__ == "__main__":
    main()
