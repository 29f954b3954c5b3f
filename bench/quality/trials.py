"""Trials of study.py: dataset, method and settings of each."""

from collections.abc import Iterator
from dataclasses import dataclass

Schedules = dict[int, tuple[str, ...]]
"""Size -> settings or options."""
SEEDS = (0, 1, 2)
"""Seeds of split, weights and order of batches."""
SPLITS = ("random", "grouped")
SIZES = (1000, 8000, 50_000)
"""Promoters of the fine-tuning training split."""
SCHEDULES = {
    1000: ("finetune.max_epochs=40", "finetune.evaluate_every=2"),
    8000: ("finetune.max_epochs=12", "finetune.evaluate_every=0.5"),
    50_000: ("finetune.max_epochs=5", "finetune.evaluate_every=0.2"),
}
"""Size -> settings of BERT: fewer promoters need more epochs."""
CNN_SCHEDULES: Schedules = {1000: ("--epochs", "20", "--batch", "32"), 8000: ("--epochs", "20"), 50_000: ()}
"""Size -> options of the CNN, tuned on the validation split of one seed; SCHEDULES was not tuned."""
CNN_LONG_SCHEDULES: Schedules = {
    1000: ("--epochs", "40", "--batch", "32", "--random-n", "0.05"),
    8000: ("--epochs", "40", "--random-n", "0.05"),
    50_000: ("--epochs", "20", "--random-n", "0.03"),
}
"""Size -> options of a long training of the CNN: epochs and random Ns of LONG_SCHEDULES."""
CNN_TWO_STRANDS_SCHEDULES: Schedules = {
    1000: ("--epochs", "80", "--batch", "32", "--random-n", "0.05", "--reverse-complement"),
    8000: ("--epochs", "80", "--random-n", "0.05", "--reverse-complement"),
    50_000: (*CNN_LONG_SCHEDULES[50_000], "--reverse-complement"),
}
"""Size -> options of a training of the CNN on both strands."""
CNN_MUON_SCHEDULES: Schedules = {
    size: (*CNN_TWO_STRANDS_SCHEDULES[size], "--optimizer", "muon", "--weight-decay", decay)
    for size, decay in ((1000, "0.3"), (8000, "0.3"), (50_000, "0.1"))
}
"""Size -> options of the same training with Muon. The weight decay for 8,000 promoters was chosen on validation rows of
one seed; the others are those of the preset.
"""
CHOICES_AT = 8000
"""Training promoters of the trials on choices that the original team left open, in a random split."""
BEST = ("shards.k=6", "finetune.tokens=overlapping")
"""Best choices of this study; also compared at the largest size."""
PRESET = "small"
"""Name of the preset of `presets`: configs/small.yaml. It is also the variant of the short training."""
LONG, TWO_STRANDS, MUON = "small-long", "small-two-strands", "small-muon"
"""Variants of the long training: on one strand; on both strands; on both with Muon, as the preset."""
CNN, CNN_LONG, CNN_TWO_STRANDS, CNN_MUON = "cnn-flank-6", "cnn-long", "cnn-two-strands", "cnn-muon"
"""The same of the CNN, which reads six bases on both sides, as the preset does."""
PRESET_DATASET = (
    "assay.min_expression=-2",
    "assay.max_expression=20",
    "dataset.pretrain_valid=0.15",
    "dataset.finetune_valid=1500",
    "dataset.finetune_test=6000",
)
LARGE_BATCH = ("finetune.global_batch=128", "finetune.learning_rate=1.5e-3", "model.compile=true")
"""Settings for 50,000 promoters. A compiled model takes a third less CPU time, which repays the compilation."""
ADAM = ("finetune.optimizer=adam", "finetune.gradient_clipping=1.0")
"""Settings of the trainings without Muon."""
RANDOM_N = ("finetune.random_n=0.05", "model.dropout=0")
"""Settings of trainings with more random Ns in place of dropout."""
ONE_STRAND = ("finetune.reverse_complement=false", "finetune.weight_decay=0.01", "model.dropout=0", *ADAM)
"""Settings of the trainings on one strand."""
SHORT_SCHEDULES: Schedules = {
    1000: ("finetune.random_n=0", "finetune.max_epochs=30", "finetune.global_batch=32", *ONE_STRAND),
    8000: ("finetune.random_n=0", "finetune.max_epochs=12", *ONE_STRAND),
    50_000: ("finetune.random_n=0", "finetune.max_epochs=10", *LARGE_BATCH, *ONE_STRAND),
}
"""Size -> settings of the preset's model for a short training, chosen on validation rows of one seed."""
TWO_STRANDS_SCHEDULES: Schedules = {
    8000: ("finetune.max_epochs=80", "finetune.weight_decay=0.3", *RANDOM_N, *ADAM),
}
"""Size -> settings of the preset's model for a training with Adam, chosen on validation rows of two seeds."""
MUON_SCHEDULES: Schedules = {
    1000: ("finetune.global_batch=32", "finetune.weight_decay=0.3", *RANDOM_N),
    8000: (),
    50_000: (
        "finetune.random_n=0.03", "finetune.max_epochs=20", "finetune.weight_decay=0.1", "model.compile=true",
        "model.dropout=0",
    ),
}  # fmt: skip
"""Size -> changes of the preset. They were chosen on validation rows: of two seeds for 8,000 promoters, of one for
50,000. The epochs for 50,000 are those of the CNN.
"""
LONG_SCHEDULES: Schedules = {
    1000: ("finetune.random_n=0.05", "finetune.max_epochs=40", "finetune.global_batch=32", *ONE_STRAND),
    8000: ("finetune.random_n=0.05", "finetune.max_epochs=40", *ONE_STRAND),
    50_000: ("finetune.random_n=0.03", "finetune.max_epochs=20", *LARGE_BATCH, *ONE_STRAND),
}
"""Size -> settings of the preset's model for a long training on one strand."""
VARIANTS: dict[str, tuple[str, Schedules]] = {
    PRESET: ("bert", SHORT_SCHEDULES),
    LONG: ("bert", LONG_SCHEDULES),
    TWO_STRANDS: ("bert", TWO_STRANDS_SCHEDULES),
    MUON: ("bert", MUON_SCHEDULES),
    CNN: ("cnn", CNN_SCHEDULES),
    CNN_LONG: ("cnn", CNN_LONG_SCHEDULES),
    CNN_TWO_STRANDS: ("cnn", CNN_TWO_STRANDS_SCHEDULES),
    CNN_MUON: ("cnn", CNN_MUON_SCHEDULES),
}
"""Variant -> method, and settings or options by size."""
OVERLAP = "dataset.group_overlap=40"
"""Keeps inserts that share a run of 40 bases in one split: 95 % of the yeast promoters are tiles of native ones."""
ABLATIONS = {
    "plateau": "finetune.schedule=plateau",
    "no-weight-decay": "finetune.weight_decay=0",
    "no-clipping": "finetune.gradient_clipping=0",
    "table": "model.kmer_embedding=table",
    "random-n": "finetune.random_n=0.03",
    "bert": "model.architecture=bert",
    "cosine": "finetune.schedule=cosine",
    "dropout": "model.dropout=0.1",
}
"""Variant of the short training -> the one setting that it changes."""
PLANT_SEEDS = (0, 1, 2, 3, 4)
PLANT_DATASET = (
    "assay.left_adapter=",
    "assay.right_adapter=",
    "assay.upstream=",
    "assay.downstream=",
    "assay.flank=0",
    "assay.max_insert=170",
    "assay.min_expression=-20",
    "assay.max_expression=20",
    "dataset.pretrain_valid=0.25",
    "dataset.finetune_valid=0.1",
    "dataset.finetune_test=0.1",
)
"""Settings of the plant promoters: inserts without adapters, as in configs/assays/plant-promoters.yaml."""
DREAM_DATASET = (
    "dataset.seed=0",
    "dataset.pretrain_valid=0.1",
    "dataset.finetune_valid=10000",
    "dataset.finetune_test=20000",
)
DREAM = (*DREAM_DATASET, "pretrain.max_epochs=3", "finetune.max_epochs=2", "finetune.evaluate_every=0.1")
"""Settings for 500,000 promoters with the noise of the assay; one split for all seeds."""


@dataclass(frozen=True)
class Trial:
    """One training and its score.

    rows: key of the file of rows. method: bert, ridge or cnn. variant: name of the setting that differs. start: name of
    the trial whose pretrained weights it starts from. preset: name of its configuration; empty: quality.yaml.
    """

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
    preset: str = ""

    @property
    def name(self) -> str:
        """Return the name of its run, such as yeast-random-0-8000-pretrained."""
        return "-".join((self.rows, self.split, str(self.seed), str(self.size or "all"), self.variant))

    @property
    def options(self) -> tuple[str, ...]:
        """Return its settings without those of dataset and shards."""
        return tuple(setting for setting in self.settings if setting not in self.data)

    @property
    def data(self) -> tuple[str, ...]:
        """Return the settings that its dataset and shards depend on."""
        own = tuple(setting for setting in self.settings if setting.startswith(("dataset.", "assay.", "shards.")))
        split = (
            f"dataset.split={self.split}",
            f"dataset.seed={self.seed}",
            f"dataset.finetune_train={self.size or 'all'}",
        )
        return (*split, *own)


def pretraining() -> Iterator[Trial]:
    """Yield the pretraining on the top fifth of all training promoters, once for all sizes."""
    for split in SPLITS:
        for seed in SEEDS:
            yield Trial("pretraining", "yeast", split, seed, None, "bert", "pretraining", (), stages="pretrain")


def learning_curves() -> Iterator[Trial]:
    """Yield pretrained BERT, BERT from scratch, ridge and CNN at each size of both splits."""
    for split in SPLITS:
        for seed in SEEDS:
            for size in SIZES:
                fixed = ("sizes", "yeast", split, seed, size)
                yield Trial(*fixed, "ridge", "ridge", ())
                yield Trial(*fixed, "bert", "scratch", ("finetune.start=scratch", *SCHEDULES[size]))
                yield Trial(*fixed, "bert", "pretrained", SCHEDULES[size], f"yeast-{split}-{seed}-all-pretraining")
                yield Trial(*fixed, "cnn", "cnn", CNN_SCHEDULES[size])


def choices() -> Iterator[Trial]:
    """Yield trials with one setting changed from `pretrained`, also in pretraining if it has an effect on it."""
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


def span_pretraining() -> Iterator[Trial]:
    """Yield the preset's pretraining on hidden spans of all promoters but the held-out ones, once for all sizes."""
    for split in SPLITS:
        for seed in SEEDS:
            fixed = ("spans", "yeast", split, seed, None, "bert", "spans")
            settings = (*PRESET_DATASET, "dataset.top_fraction=1", "model.dropout=0")
            yield Trial(*fixed, settings, stages="pretrain", preset=PRESET)


def spans() -> Iterator[Trial]:
    """Yield the preset's training from that pretraining; `presets` has the same without it."""
    for split in SPLITS:
        for seed in SEEDS:
            for size in SIZES:
                settings = (*PRESET_DATASET, *MUON_SCHEDULES[size], "finetune.start=pretrained")
                fixed = ("spans", "yeast", split, seed, size, "bert", f"{MUON}-pretrained")
                yield Trial(*fixed, settings, f"yeast-{split}-{seed}-all-spans", preset=PRESET)


def variants_of(size: int) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Yield the variants that a size has: name, method, and settings or options."""
    for variant, (method, schedules) in VARIANTS.items():
        if size in schedules:
            yield variant, method, schedules[size]


def presets() -> Iterator[Trial]:
    """Yield all variants of the preset, and of the CNN on its shards, which have six bases on both sides."""
    for split in SPLITS:
        for seed in SEEDS:
            for size in SIZES:
                fixed = ("presets", "yeast", split, seed, size)
                for variant, method, schedule in variants_of(size):
                    yield Trial(*fixed, method, variant, (*PRESET_DATASET, *schedule), preset=PRESET)


def overlap() -> Iterator[Trial]:
    """Yield these variants, and ridge, where no held-out promoter shares a run of bases with a training promoter."""
    dataset = (*PRESET_DATASET, OVERLAP)
    for seed in SEEDS:
        for size in SIZES:
            fixed = ("overlap", "yeast", "grouped", seed, size)
            yield Trial(*fixed, "ridge", "ridge-overlap", dataset, preset=PRESET)
            for variant, method, schedule in variants_of(size):
                yield Trial(*fixed, method, f"{variant}-overlap", (*dataset, *schedule), preset=PRESET)


def ablations() -> Iterator[Trial]:
    """Yield a short training of the preset with one setting changed; `presets` has the same without the change."""
    for variant, changed in ABLATIONS.items():
        for seed in SEEDS:
            settings = (*PRESET_DATASET, *SHORT_SCHEDULES[CHOICES_AT], changed)
            fixed = ("ablations", "yeast", "random", seed, CHOICES_AT)
            yield Trial(*fixed, "bert", f"{PRESET}-{variant}", settings, preset=PRESET)


def plant() -> Iterator[Trial]:
    """Yield the preset for two cores, the paper's BERT at its size, CNN and ridge on plant promoters."""
    for seed in PLANT_SEEDS:
        fixed = ("plant", "plant", "random", seed, None)
        yield Trial(*fixed, "ridge", "ridge", PLANT_DATASET)
        yield Trial(*fixed, "cnn", "cnn", (*PLANT_DATASET, *CNN_SCHEDULES[8000]), preset=PRESET)
        yield Trial(*fixed, "bert", PRESET, (*PLANT_DATASET, *SHORT_SCHEDULES[8000]), preset=PRESET)
        yield Trial(*fixed, "bert", "scratch", (*PLANT_DATASET, "finetune.start=scratch", *SCHEDULES[8000]))


def dream() -> Iterator[Trial]:
    """Train both stages, and a CNN, on promoters with the assay's noise."""
    for seed in SEEDS:
        yield Trial("dream", "dream", "random", seed, None, "bert", "pretrained", DREAM)
        yield Trial("dream", "dream", "random", seed, None, "cnn", "cnn", ("--epochs", "2", *DREAM_DATASET))


def trials() -> list[Trial]:
    """List all trials; each comes after the one that it starts from."""
    sizes, preset = [*pretraining(), *learning_curves()], [*presets(), *overlap(), *span_pretraining(), *spans()]
    return [*sizes, *preset, *ablations(), *plant(), *dream(), *choices()]
