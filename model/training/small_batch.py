"""Find batches that are too small for the GPUs of a run: the host then limits the speed."""

from model.config import Config, StageName

ENOUGH_SEQUENCES = 1024
"""Token sequences per GPU and step: about 12 ms of an H200. The host needs as long to launch a step's kernels."""


def describe_small_batch(config: Config, name: StageName, gpus: int) -> str:
    """Describe the batch of a stage if it is too small for the GPUs; empty if it is large enough.

    The paper's 64 promoters are 4 per GPU on 16 GPUs.
    """
    stage = config.stage(name)
    frames = config.shards.k if name == "finetune" and config.finetune.tokens == "frames" else 1
    per_gpu, enough = -(-stage.global_batch // gpus), -(-ENOUGH_SEQUENCES // frames)
    if per_gpu >= enough:
        return ""
    return (
        f"{name}.global_batch={stage.global_batch} is {per_gpu} per GPU, so the host limits the speed; a GPU needs at "
        f"least {enough:,} {config.assay.name}s per step"
    )


FIX = "use fewer GPUs, or larger batches with a higher learning rate, as in configs/h200.yaml"
