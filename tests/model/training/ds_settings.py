"""Train some steps with each of several DeepSpeed configs, and write losses and host waits as JSON.

Run by test_ds_settings.py as one rank. DeepSpeed rejects fp16 on a CPU; its check is patched here.
"""

import itertools
import json
import sys
from pathlib import Path

import torch
from deepspeed.accelerator import get_accelerator

from model.bert import length_cut
from model.bert.build import build_task
from model.bert.fused_attention import fuse_projections
from model.config import Config
from model.distributed.process_group import init_group, leave_group
from model.training.checkpointing.hf_export import gather_weights
from model.training.ds_config import read_ds_config
from model.training.engine import start_engine
from pipeline.shards.index import read_index
from pipeline.shards.location import shard_folder
from pipeline.stream.stream import RankSlice, ShardStream
from tests.model.gpu.fake_gpu import Watch
from tests.model.training.zero_and_precision import PRECISIONS

STEPS, MICRO_BATCH = 4, 8
UNCUT = length_cut.PASS_TOKENS, length_cut.ROW_STEP
LEAN = {"bf16": {"enabled": True, "check_grad_overflow": False}}
TRIED = {
    "plain": {},
    "logs": {
        "wall_clock_breakdown": True, "dump_state": True, "steps_per_print": 1,
        "comms_logger": {"enabled": True}, "flops_profiler": {"enabled": True, "profile_step": 2},
        "tensorboard": {"enabled": True, "output_path": "board"},
        "csv_monitor": {"enabled": True, "output_path": "csv", "job_name": "run"},
        "zero_optimization": {"stage": 1},
    },
    "communication": {"communication_data_type": "fp32", "zero_optimization": {"stage": 2}},
    "zero 2": {
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "zero_optimization": {
            "stage": 2, "contiguous_gradients": True, "overlap_comm": True, "reduce_scatter": True,
            "allgather_partitions": True, "reduce_bucket_size": 5e6, "allgather_bucket_size": 5e6,
            "round_robin_gradients": True, "parameter_alignment": True, "ignore_unused_parameters": True,
        },
    },
    "zero 3": {
        "aio": {"block_size": 1048576},
        "zero_optimization": {
            "stage": 3, "overlap_comm": True, "contiguous_gradients": True, "sub_group_size": 1e9,
            "reduce_bucket_size": "auto", "stage3_prefetch_bucket_size": "auto",
            "stage3_param_persistence_threshold": "auto", "stage3_model_persistence_threshold": 1e9,
            "stage3_max_live_parameters": 1e9, "stage3_max_reuse_distance": 1e9, "memory_efficient_linear": False,
            "stage3_gather_16bit_weights_on_model_save": True,
        },
    },
}  # fmt: skip
"""Settings that read_ds_config accepts, in float32."""
COUNTED = {
    "0 fp32": {},
    **{f"{z} {p}": {**PRECISIONS[p], "zero_optimization": {"stage": z}} for z in (1, 2, 3) for p in PRECISIONS},
    **{f"{z} lean bf16": {**LEAN, "zero_optimization": {"stage": z, "compute_grad_norm": False}} for z in (1, 2)},
}
COUNTED |= {f"pretrain {name}": COUNTED[name] for name in ("1 fp16", "1 bf16", "1 lean bf16")}
"""Settings whose host waits have a budget."""
GPU_STEP = ("1 fp16", "2 fp16", "1 lean bf16", "2 bf16", "pretrain 1 fp16", "pretrain 1 lean bf16")
"""Settings that also train with several passes per micro-batch and fused projections, as on a GPU."""


def measure(config, world, name, values, gpu_step=False):
    """Train some steps. gpu_step: cut the micro-batches into passes as if these cost nothing, and fuse projections.

    Returns the loss, a sum over the exported weights, and host waits and operator calls of the last step.
    """
    Path("ds.json").write_text(json.dumps({"train_micro_batch_size_per_gpu": MICRO_BATCH, **values}))
    settings = read_ds_config(Path("ds.json"), cuda=True)
    index = read_index(shard_folder(config))
    torch.manual_seed(1)
    stage = "pretrain" if name.startswith("pretrain") else "finetune"
    task = build_task(config, index, stage)
    length_cut.PASS_TOKENS, length_cut.ROW_STEP = (0, 1) if gpu_step else UNCUT
    if gpu_step:
        fuse_projections(task.model)
    engine = start_engine(stage, config.stage(stage), task, settings, world, 0)
    engine.deepspeed.train()
    part = RankSlice(0, 1, engine.plan.micro_batches)
    steps = ShardStream(shard_folder(config), index, f"{stage}/train", 32, part, seed=0).epoch(0)
    sums, watch = torch.zeros(3, dtype=torch.float64), Watch()
    for step in itertools.islice(steps, STEPS):
        engine.train_step(step, sums)
    last = next(steps)
    with watch:
        engine.train_step(last, sums)
    weights = sum(float(weight.double().abs().sum()) for weight in gather_weights(engine).values())
    passes = [len(task.cut(batch, world.device)) for batch in last.micro_batches]
    engine.deepspeed.destroy()
    return {
        "loss": float(sums[0]), "weights": weights, "waits": watch.problems, "operations": watch.operations,
        "passes": passes,
    }  # fmt: skip


def main():
    config = Config.model_validate_json(Path(sys.argv[1]).read_text())
    world = init_group()
    type(get_accelerator()).is_fp16_supported = lambda _: True
    results = {name: measure(config, world, name, values) for name, values in (TRIED | COUNTED).items()}
    results |= {f"gpu step {name}": measure(config, world, name, COUNTED[name], gpu_step=True) for name in GPU_STEP}
    Path("results.json").write_text(json.dumps(results, indent=1))
    leave_group()


if __name__ == "__main__":
    main()
