"""The whole configuration: the sections of pipeline.config.schema, and run, model, pretrain and finetune."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from pipeline.config import loader
from pipeline.config.schema import DEFAULT_CONFIG, Count, DataConfig, Section

StageName = Literal["pretrain", "finetune"]
Stages = Literal["pretrain", "finetune", "both"]
"""The value of --stage."""
STAGES: tuple[StageName, ...] = ("pretrain", "finetune")
"""All stages, in the order of training."""


class Model(Section):
    """Architecture and size of the model, and how torch computes it."""

    LATER_SETTINGS = ("architecture", "kmer_embedding", "attention_window", "global_attention_every")

    architecture: Literal["bert", "modernbert"] = "bert"
    """bert: absolute positions, head on the [CLS]. modernbert: rotary positions, local attention, head on the mean."""
    kmer_embedding: Literal["table", "composed"] = "table"
    """table: a vector per k-mer. composed: computed from its bases by a network that all k-mers share."""
    attention_window: Annotated[int, Field(ge=2, multiple_of=2)] = 32
    """modernbert: tokens, half of them on each side, that a token attends to in local layers."""
    global_attention_every: Count = 2
    """modernbert: layers 1, 1 + n, 1 + 2n, ... attend to all tokens; 1: all layers."""
    hidden: Count
    """Width of the embeddings and layers."""
    layers: Count
    """Number of transformer layers."""
    heads: Count
    """Attention heads per layer."""
    intermediate: Count
    """Width of the feed-forward blocks."""
    dropout: Annotated[float, Field(ge=0, lt=1)]
    """Dropout probability. bert: of embeddings, attention and layers. modernbert: of feed-forward blocks and head."""
    compile: bool
    """Whether torch.compile compiles the training step."""
    tf32: bool
    """Whether float32 matrix products on a GPU use TF32."""

    @model_validator(mode="after")
    def _check_values(self) -> "Model":
        if self.hidden % self.heads:
            raise ValueError(f"hidden {self.hidden} is not a multiple of heads {self.heads}")
        if self.architecture == "modernbert" and self.hidden // self.heads % 2:
            raise ValueError(
                f"hidden {self.hidden} / heads {self.heads} is odd, but modernbert rotates pairs of channels"
            )
        return self


class Plateau(Section):
    """Settings of the schedule plateau: torch's ReduceLROnPlateau on the validation metric (higher is better)."""

    factor: Annotated[float, Field(gt=0, lt=1)]
    """Multiplier of the learning rate."""
    patience: Annotated[int, Field(ge=0)]
    """Evaluations without improvement before the rate is lowered."""
    threshold: Annotated[float, Field(ge=0)]
    """Smallest relative improvement that counts."""
    min_lr: Annotated[float, Field(ge=0)]
    """Lower limit of the learning rate."""


class Stage(Section):
    """Settings that both training stages have."""

    LATER_SETTINGS: ClassVar[tuple[str, ...]] = (
        "optimizer",
        "muon_learning_rate",
        "schedule",
        "weight_decay",
        "gradient_clipping",
    )

    global_batch: Count
    """Promoters per optimizer step, over all ranks and accumulation steps."""
    optimizer: Literal["adam", "muon"] = "adam"
    """adam: Adam or AdamW for all weights. muon: Muon for the matrices of the layers, AdamW for the other weights."""
    learning_rate: Annotated[float, Field(gt=0)]
    """Learning rate after the warm-up."""
    muon_learning_rate: Annotated[float, Field(gt=0)] = 0.01
    """Learning rate of Muon after the warm-up; the schedule changes both rates by the same factor."""
    warm_up: Annotated[int, Field(ge=0)]
    """Optimizer steps over which the rate rises linearly to learning_rate; 0: no warm-up."""
    schedule: Literal["plateau", "cosine", "onecycle"] = "plateau"
    """plateau: lower the rate when validation stops improving. cosine: fall to 0 over max_epochs, after the warm-up.
    onecycle: rise over the first tenth of max_epochs, then fall, as in torch's OneCycleLR."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Decoupled weight decay of all weights. Above 0 the optimizer is AdamW in both stages."""
    gradient_clipping: Annotated[float, Field(ge=0)] = 0.0
    """Largest norm of the gradient of a step. 0: gradient_clipping of ds_config.json, which does not clip."""
    max_epochs: Annotated[float, Field(gt=0)]
    """Maximum number of epochs; early stopping may end the stage before."""
    reverse_complement: bool
    """Whether a random half of the promoters is replaced by reverse complements; the half differs in each epoch."""
    evaluate_every: Annotated[float, Field(gt=0)]
    """Fraction of an epoch between two evaluations."""
    early_stop: Count
    """Early stopping: evaluations without improvement that end the stage."""
    plateau: Plateau

    @model_validator(mode="after")
    def _check_schedule(self) -> "Stage":
        if self.schedule == "onecycle" and self.warm_up:
            raise ValueError(f"warm_up is {self.warm_up}, but with schedule=onecycle it must be 0: it has its own rise")
        return self


class Pretrain(Stage):
    """Masked language model on the top promoters: cross-entropy, AdamW."""

    LATER_SETTINGS = (*Stage.LATER_SETTINGS, "objective")

    objective: Literal["kmers", "spans"] = "kmers"
    """kmers: predict masked k-mers of one reading frame, as in BERT. spans: hide spans of bases, and predict them from
    overlapping k-mers; for models with finetune.tokens=overlapping."""
    mask_share: Annotated[float, Field(gt=0, lt=1)]
    """kmers: fraction of the k-mers to predict. As in BERT, 80 % are masked, 10 % replaced at random, 10 % unchanged.
    spans: fraction of the bases to hide."""
    masked: Literal["sentence", "insert"]
    """Which k-mers may be masked, or bases hidden: those of the whole sequence, or those wholly inside the insert."""


class Finetune(Stage):
    """Regression of expression on standardized labels: Adam, or AdamW with weight decay."""

    LATER_SETTINGS = (*Stage.LATER_SETTINGS, "bins", "whole_number_flag", "random_n")

    start: Literal["pretrained", "scratch", "frozen"]
    """Initial weights. frozen: the pretrained encoder is fixed; pooler and output layer are trained."""
    pretrained: Annotated[str, Field(min_length=1)]
    """Masked language model to start from. own: of this run; else the folder runs/NAME/pretrained of another run."""
    tokens: Literal["frames", "overlapping"]
    """Input of the model: each of the k reading frames of a promoter, or the overlapping k-mers at all bases."""
    loss: Literal["mse", "smooth_l1", "bins"]
    """Mean squared error, or smooth L1: squared up to one standard deviation of the labels, linear above. bins:
    cross-entropy over bins of the label; the prediction is the expected value."""
    bins: Annotated[int, Field(ge=2, le=1000)] = 18
    """loss=bins: number of bins; their centres lie evenly from assay.min_expression to assay.max_expression."""
    whole_number_flag: bool = False
    """Whether training tells the model which labels are whole numbers, by token type 1. Predictions use token type 0,
    so the model predicts as for a fractional label. Only for architecture=bert."""
    random_n: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability with which each base of a training promoter is read as N; the bases differ in each step."""

    @model_validator(mode="after")
    def _check_values(self) -> "Finetune":
        if self.start == "scratch" and self.pretrained != "own":
            raise ValueError(f"pretrained is {self.pretrained}, but with finetune.start=scratch it must be own")
        if self.start == "frozen" and self.whole_number_flag:
            raise ValueError("whole_number_flag is true, but with finetune.start=frozen no token type is trained")
        return self

    @property
    def uses_own_pretraining(self) -> bool:
        """Return whether fine-tuning starts from this run's own pretraining."""
        return self.start != "scratch" and self.pretrained == "own"

    @property
    def pretrained_folder(self) -> Path | None:
        """Return the folder of another run's pretrained model; None if fine-tuning starts from no other run."""
        return None if self.pretrained == "own" else Path(self.pretrained)


class Run(Section):
    """One training run."""

    LATER_SETTINGS = ("deterministic",)

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    path: str
    """Folder of the run directories."""
    seed: Annotated[int, Field(ge=0)]
    """Random seed of weights, batch order, masks and dropout."""
    checkpoint_minutes: Annotated[float, Field(gt=0)]
    """Minutes between two checkpoints. Each evaluation also writes one."""
    keep_checkpoints: Count
    """Number of last checkpoints to keep per stage. The one with the best validation metric is kept as well."""
    deterministic: bool = False
    """Whether GPUs use deterministic kernels only, so that a resumed run reaches the same weights. Steps are slower."""

    @property
    def directory(self) -> Path:
        """Return the run directory."""
        return Path(self.path) / self.name


class Config(DataConfig):
    """All settings except DeepSpeed's own."""

    SKIPPED_SECTIONS: ClassVar[tuple[str, ...]] = ()

    run: Run
    model: Model
    pretrain: Pretrain
    finetune: Finetune

    @model_validator(mode="after")
    def _check_stages(self) -> "Config":
        if self.pretrain.objective == "spans" and self.finetune.tokens != "overlapping":
            raise ValueError(
                f"pretrain.objective is spans, but finetune.tokens is {self.finetune.tokens}; expected "
                "finetune.tokens=overlapping"
            )
        if self.finetune.whole_number_flag and self.model.architecture != "bert":
            raise ValueError(
                f"finetune.whole_number_flag is true, but architecture={self.model.architecture} has no token types; "
                "expected model.architecture=bert"
            )
        return self

    def stage(self, name: StageName) -> Stage:
        """Return the section of a stage."""
        return self.pretrain if name == "pretrain" else self.finetune

    def stages(self, request: Stages) -> list[StageName]:
        """Return the stages to train, in order; `both` skips a pretraining that fine-tuning does not start from."""
        if request == "both":
            return list(STAGES) if self.finetune.uses_own_pretraining else ["finetune"]
        return [request]


def load_config(path: Path | str = DEFAULT_CONFIG, overrides: Sequence[str] = ()) -> Config:
    """Load a config file with `section.key=value` overrides; see pipeline.config.loader.load_config."""
    return loader.load_config(path, overrides, Config)


OPTION_SETTINGS = {
    "batch-size": "global_batch", "data": "dataset.path", "dataset": "dataset.path", "epochs": "max_epochs",
    "lr": "learning_rate", "name": "run.name", "num-epochs": "max_epochs", "o": "run.path", "out": "run.path",
    "output": "run.path", "output-dir": "run.path", "run": "run.name", "run-name": "run.name", "seed": "run.seed",
    "shards": "shards.path", "workers": "shards.workers",
}  # fmt: skip
"""Options of other programs, and of promoter-bert's commands, that people try on train.py -> their setting."""


def suggest_setting(option: str, values: Sequence[str] = ()) -> str:
    """Suggest the override for an option that train.py does not have, such as --k or --learning-rate=1e-3.

    values: the other arguments; one without = is taken as the option's value.
    """
    name, _, given = option.lstrip("-").partition("=")
    name = name.replace("_", "-").lower()
    setting = OPTION_SETTINGS.get(name, name.replace("-", "_"))
    keys = [setting] if "." in setting else loader.find_keys(setting, Config)
    if not keys:
        return "expected overrides, section.key=value; fix: config.yaml lists the settings"
    value = given or next((value for value in values if "=" not in value), "VALUE")
    return f"fix: use {' or '.join(f'{key}={value}' for key in keys)}"
