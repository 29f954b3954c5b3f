"""Trials of study.py: each a dataset, a method and its settings."""

from collections.abc import Iterator
from dataclasses import dataclass

SEEDS = (0, 1, 2)
"""Seeds of the split, the weights and the order of the batches."""
SPLITS = ("random", "grouped")
SIZES = (1000, 8000, 50_000)
"""Promoters to fine-tune on."""
SCHEDULES = {
    1000: ("finetune.max_epochs=40", "finetune.evaluate_every=2"),
    8000: ("finetune.max_epochs=12", "finetune.evaluate_every=0.5"),
    50_000: ("finetune.max_epochs=5", "finetune.evaluate_every=0.2"),
}
"""Fewer promoters are trained on for more epochs."""
CNN_SCHEDULES = {1000: ("--epochs", "20", "--batch", "32"), 8000: ("--epochs", "20"), 50_000: ()}
"""Tuned on the validation rows of one seed; the BERT's were not tuned."""
CHOICES_AT = 8000
"""Training promoters, in a random split, for the comparison of the original team's open choices."""
BEST = ("shards.k=6", "finetune.tokens=overlapping")
"""The better choices, those of configs/best.yaml; compared at the largest size, too."""
DREAM_DATASET = (
    "dataset.seed=0",
    "dataset.pretrain_valid=0.1",
    "dataset.finetune_valid=10000",
    "dataset.finetune_test=20000",
)
DREAM = (*DREAM_DATASET, "pretrain.max_epochs=3", "finetune.max_epochs=2", "finetune.evaluate_every=0.1")
"""For 500,000 promoters with the noise of the assay; one split for all seeds."""


@dataclass(frozen=True)
class Trial:
    """One training and its score. rows: key of the file; method: bert, ridge or cnn; variant: its difference; start:
    the trial whose pretraining it starts from."""

    study: str
    rows: str
    split: str
    seed: int
    size: int | None
    method: str
    variant: str
    settings: tuple[str, ...]
    start: str | None = None
    stages: str = "both"

    @property
    def name(self) -> str:
        """Name of its run, such as yeast-random-0-8000-pretrained."""
        return "-".join((self.rows, self.split, str(self.seed), str(self.size or "all"), self.variant))

    @property
    def options(self) -> tuple[str, ...]:
        """Its settings without those of dataset and shards."""
        return tuple(setting for setting in self.settings if setting not in self.data)

    @property
    def data(self) -> tuple[str, ...]:
        """The settings that its dataset and shards depend on."""
        mine = tuple(setting for setting in self.settings if setting.startswith(("dataset.", "assay.", "shards.")))
        drawn = (
            f"dataset.split={self.split}",
            f"dataset.seed={self.seed}",
            f"dataset.finetune_train={self.size or 'all'}",
        )
        return (*drawn, *mine)


def pretraining() -> Iterator[Trial]:
    """Pretrain on the top fifth of all training promoters, once for all sizes."""
    for split in SPLITS:
        for seed in SEEDS:
            yield Trial("pretraining", "yeast", split, seed, None, "bert", "pretraining", (), stages="pretrain")


def learning_curves() -> Iterator[Trial]:
    """Compare pretrained, from scratch, ridge and CNN at each size of both splits."""
    for split in SPLITS:
        for seed in SEEDS:
            for size in SIZES:
                fixed = ("sizes", "yeast", split, seed, size)
                yield Trial(*fixed, "ridge", "ridge", ())
                yield Trial(*fixed, "bert", "scratch", ("finetune.start=scratch", *SCHEDULES[size]))
                yield Trial(*fixed, "bert", "pretrained", SCHEDULES[size], f"yeast-{split}-{seed}-all-pretraining")
                yield Trial(*fixed, "cnn", "cnn", CNN_SCHEDULES[size])


def choices() -> Iterator[Trial]:
    """Change one thing at a time from `pretrained` of CHOICES_AT promoters, in pretraining too if it matters there."""
    schedule = SCHEDULES[CHOICES_AT]
    same_pretraining = ("smooth-l1", "longer")
    variants: dict[str, tuple[str, ...]] = {
        "smooth-l1": ("finetune.loss=smooth_l1",),
        "overlapping": ("finetune.tokens=overlapping",),
        "k-6": ("shards.k=6",),
        "k-6-overlapping": BEST,
        "longer": ("finetune.max_epochs=40", "finetune.evaluate_every=2"),
        "two-strands": ("pretrain.reverse_complement=true", "finetune.reverse_complement=true"),
        "flank-150": ("assay.flank=150",),
        "flank-150-insert-masked": ("assay.flank=150", "pretrain.masked=insert"),
    }
    for name, changed in variants.items():
        for seed in SEEDS:
            fixed = ("choices", "yeast", "random", seed, CHOICES_AT, "bert")
            start = f"yeast-random-{seed}-all-pretraining" if name in same_pretraining else None
            yield Trial(*fixed, name, (*schedule, *changed), start)
    most, best = max(SIZES), "k-6-overlapping"
    for seed in SEEDS:
        start = f"yeast-random-{seed}-{CHOICES_AT}-{best}"
        yield Trial("choices", "yeast", "random", seed, most, "bert", best, (*SCHEDULES[most], *BEST), start)


def dream() -> Iterator[Trial]:
    """Train both stages, and a CNN, on promoters with the assay's noise."""
    for seed in SEEDS:
        yield Trial("dream", "dream", "random", seed, None, "bert", "pretrained", DREAM)
        yield Trial("dream", "dream", "random", seed, None, "cnn", "cnn", ("--epochs", "2", *DREAM_DATASET))


def trials() -> list[Trial]:
    """List all trials; each comes after the one that it starts from."""
    return [*pretraining(), *learning_curves(), *dream(), *choices()]
