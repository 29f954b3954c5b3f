"""The whole configuration: the data sections of pipeline/config, and run, model, pretrain, finetune."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from pipeline.config import loader
from pipeline.config.schema import DEFAULT_CONFIG, Count, DataConfig, Section

StageName = Literal["pretrain", "finetune"]
Stages = Literal["pretrain", "finetune", "both"]
"""What is asked for of a run."""
STAGES: tuple[StageName, ...] = ("pretrain", "finetune")
"""In their order."""


class Model(Section):
    """Size of the BERT, and how it is worked out."""

    hidden: Count
    """Width of the embeddings and layers."""
    layers: Count
    heads: Count
    intermediate: Count
    """Width inside the feed-forward blocks."""
    dropout: Annotated[float, Field(ge=0, lt=1)]
    compile: bool
    """Whether torch.compile makes the training step."""
    tf32: bool
    """Whether float32 matrix products on a GPU are done in TF32."""

    @model_validator(mode="after")
    def _possible(self) -> "Model":
        if self.hidden % self.heads:
            raise ValueError(f"hidden {self.hidden} is not a multiple of heads {self.heads}")
        return self


class Plateau(Section):
    """torch's ReduceLROnPlateau on the stage's validation metric (higher is better)."""

    factor: Annotated[float, Field(gt=0, lt=1)]
    """The learning rate is multiplied by this."""
    patience: Annotated[int, Field(ge=0)]
    """Evaluations without improvement that are waited for before."""
    threshold: Annotated[float, Field(ge=0)]
    """Relative improvement that counts."""
    min_lr: Annotated[float, Field(ge=0)]


class Stage(Section):
    """What both training stages have."""

    global_batch: Count
    """Promoters an optimizer step, over all ranks and accumulation steps."""
    learning_rate: Annotated[float, Field(gt=0)]
    warm_up: Annotated[int, Field(ge=0)]
    """Steps over which the learning rate rises to that value; 0: it begins there."""
    max_epochs: Annotated[float, Field(gt=0)]
    """Passes over the training split after which the stage ends, if early stopping did not end it."""
    reverse_complement: bool
    """Whether half of the promoters, drawn anew each epoch, are read from the other strand."""
    evaluate_every: Annotated[float, Field(gt=0)]
    """Part of an epoch between two evaluations."""
    early_stop: Count
    """Evaluations without improvement that end the stage."""
    plateau: Plateau


class Pretrain(Stage):
    """Masked language model on the top promoters: cross-entropy, AdamW without decay."""

    mask_share: Annotated[float, Field(gt=0, lt=1)]
    """Share of the k-mers that are to be predicted; of these 80 % are hidden, 10 % swapped, 10 % left."""
    masked: Literal["sentence", "insert"]
    """Where k-mers are to be predicted: in the whole sequence, or wholly inside the insert."""


class Finetune(Stage):
    """Expression from sequence, on standardised labels: Adam."""

    start: Literal["pretrained", "scratch", "frozen"]
    """Where the weights come from; frozen: the pretrained encoder stays as it is, pooler and output are trained."""
    pretrained: Annotated[str, Field(min_length=1)]
    """The masked language model to start from: own, that of this run's pretraining, or the folder of another one."""
    tokens: Literal["frames", "overlapping"]
    """What the model reads of a promoter: each of its k reading frames, or the k-mers at all bases at once."""
    loss: Literal["mse", "smooth_l1"]
    """Mean squared error, or smooth L1: squared up to one standard deviation of the labels, linear beyond."""

    @model_validator(mode="after")
    def _possible(self) -> "Finetune":
        if self.start == "scratch" and self.pretrained != "own":
            raise ValueError(f"start is scratch, so expected pretrained: own, got {self.pretrained}")
        return self

    @property
    def wants_pretraining(self) -> bool:
        """Whether it starts from what this run's own pretraining found."""
        return self.start != "scratch" and self.pretrained == "own"

    @property
    def other_pretraining(self) -> Path | None:
        """The folder of another run's pretrained model, where it starts from one."""
        return None if self.pretrained == "own" else Path(self.pretrained)


class Run(Section):
    """One training run."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    path: str
    """Folder of the run directories."""
    seed: Annotated[int, Field(ge=0)]
    """Weights, order of the batches, masks, dropout."""
    checkpoint_minutes: Annotated[float, Field(gt=0)]
    """Time between two checkpoints; each evaluation makes one, too."""
    keep_checkpoints: Count
    """Last checkpoints kept of a stage; that of the best validation stays, too."""

    @property
    def directory(self) -> Path:
        """Where the run's files lie."""
        return Path(self.path) / self.name


class Config(DataConfig):
    """Everything but DeepSpeed's own settings."""

    SKIPPED_SECTIONS: ClassVar[tuple[str, ...]] = ()

    run: Run
    model: Model
    pretrain: Pretrain
    finetune: Finetune

    def stage(self, name: StageName) -> Stage:
        """The section of a stage."""
        return self.pretrain if name == "pretrain" else self.finetune

    def stages(self, asked: Stages) -> list[StageName]:
        """Those that a run goes through where these are asked for, in their order."""
        if asked == "both":
            return list(STAGES) if self.finetune.wants_pretraining else ["finetune"]
        return [asked]


def load_config(path: Path | str = DEFAULT_CONFIG, overrides: Sequence[str] = ()) -> Config:
    """Read a config file and apply `key.path=value` overrides; see pipeline.config.loader.load_config."""
    return loader.load_config(path, overrides, Config)
