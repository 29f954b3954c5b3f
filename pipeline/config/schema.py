"""The settings of the data sections as typed, checked objects: assay, dataset, shards."""

import shlex
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, model_validator

from pipeline.paths import shipped

DEFAULT_CONFIG = shipped("config.yaml")

Bases = Annotated[str, Field(pattern="^[ACGTN]*$")]
Share = Annotated[float, Field(gt=0, le=1)]


def _count_or_share(size: float) -> float:
    if size >= 1 and not float(size).is_integer():
        raise ValueError("a size from 1 on is a number of rows: expected a whole number")
    return size


Size = Annotated[float, Field(ge=0), AfterValidator(_count_or_share)]
Count = Annotated[int, Field(ge=1)]


def _all_or_size(size: Any) -> Any:
    """Checked as one: of a wrong value pydantic would say what is wrong with it as either."""
    if size == "all":
        return size
    if isinstance(size, bool) or not isinstance(size, int | float) or not size >= 0:
        raise ValueError("expected all, a number of rows or a share below 1")
    return _count_or_share(size)


AllOrSize = Annotated[Literal["all"] | float, BeforeValidator(_all_or_size)]


class Section(BaseModel):
    """A section of the configuration: unknown keys and values of another type are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Assay(Section):
    """The construct that was measured; another reporter assay is another set of these values."""

    left_adapter: Bases
    """Bases in every sequence before the insert; cut off before the flanks are set on."""
    right_adapter: Bases
    """Bases in every sequence after the insert."""
    upstream: Bases
    """Plasmid before the insert, left adapter included; flank takes its last bases."""
    downstream: Bases
    """Plasmid after the insert, right adapter included; flank takes its first bases."""
    flank: Annotated[int, Field(ge=0)]
    """Bases of plasmid set on each side of the insert."""
    min_insert: Annotated[int, Field(ge=0)]
    """Shortest insert taken, in bases."""
    max_insert: Count
    """Longest insert taken, in bases."""
    min_expression: float
    """Lowest label taken."""
    max_expression: float
    """Highest label taken."""
    white_space: Literal["reject", "strip"]
    """Spaces within a sequence."""
    lower_case: Literal["reject", "upper"]
    """Bases in lower case."""
    uracil: Literal["reject", "thymine"]
    """U in place of T."""
    iupac: Literal["reject", "n"]
    """Codes for several bases, such as R for A or G: n reads each as N."""
    missing_adapters: Literal["reject", "add"]
    """Sequences without either adapter: add takes them for bare inserts."""

    @model_validator(mode="after")
    def _possible(self) -> "Assay":
        if self.flank > min(len(self.upstream), len(self.downstream)):
            raise ValueError(
                f"flank {self.flank} is longer than upstream ({len(self.upstream)} bases) "
                f"or downstream ({len(self.downstream)})"
            )
        if self.min_insert > self.max_insert:
            raise ValueError(f"min_insert {self.min_insert} is above max_insert {self.max_insert}")
        if self.min_expression >= self.max_expression:
            raise ValueError(f"min_expression {self.min_expression} is not below max_expression {self.max_expression}")
        return self

    @property
    def left_flank(self) -> str:
        """The bases set on before an insert."""
        return self.upstream[len(self.upstream) - self.flank :]

    @property
    def right_flank(self) -> str:
        """The bases set on after an insert."""
        return self.downstream[: self.flank]


class Dataset(Section):
    """How rows become the dataset. Sizes below 1 are shares of the rows, from 1 on exact counts."""

    path: str
    """The DuckDB file; its Parquet lies beside it."""
    seed: Annotated[int, Field(ge=0)]
    """Decides, with each sequence, the random order that the splits are cut from."""
    duplicates: Literal["keep", "first", "average"]
    """Equal sequences: keep all, the first of them in the input, or one with the mean of their labels."""
    split: Literal["random", "grouped"]
    """Grouped keeps equal and near-duplicate inserts in one split."""
    max_mismatches: Annotated[int, Field(ge=0, le=8)]
    """Inserts within so many mismatches, or one indel, of each other are near-duplicates."""
    top_fraction: Share
    """Share of the promoters, highest expression first, to pretrain on; ties at the cut are in."""
    pretrain_valid: Size
    """Pretraining rows held out for validation."""
    pretrain_valid_at_most: Count
    """Never more pretraining rows than this for validation."""
    finetune_valid: Size
    """Fine-tuning rows held out for validation."""
    finetune_test: Size
    """Fine-tuning rows held out for the test."""
    finetune_train: AllOrSize
    """Fine-tuning rows trained on: all that are not held out, or so many of these; a share is one of all promoters."""

    @model_validator(mode="after")
    def _possible(self) -> "Dataset":
        shares = self.finetune_valid, self.finetune_test
        if max(shares) < 1 <= sum(shares):
            raise ValueError(f"finetune_valid {shares[0]} and finetune_test {shares[1]} leave nothing to train on")
        return self


class Shards(Section):
    """How promoters become token shards."""

    path: Annotated[str, Field(min_length=1)]
    """Folder, or URL such as s3://bucket/shards; the shards of k = 3 land in its k3."""
    k: Annotated[int, Field(ge=1, le=8)]
    """Bases a token."""
    record_promoters: Annotated[int, Field(ge=1, le=1_000_000)]
    """Promoters a record; that many are held in memory at once."""
    shard_megabytes: Annotated[float, Field(gt=0)]
    """Size aimed at for a shard file, in 10^6 bytes before compression."""
    compression: Literal["none", "zstd"]
    """Zstandard makes shards that travel a sixth as large; plain webdataset then needs a decoder for them."""
    workers: Count
    """Writer processes."""
    cache: str
    """Folder for copies of shards whose path is a URL."""
    cache_gigabytes: Annotated[float, Field(gt=0)]
    """What it holds at most, in 10^9 bytes."""


class DataConfig(Section):
    """What building, sharding and streaming read of a configuration file."""

    SKIPPED_SECTIONS: ClassVar[tuple[str, ...]] = ("run", "model", "pretrain", "finetune")
    """Sections of the same file that only training reads."""

    assay: Assay
    dataset: Dataset
    shards: Shards
    _file: Path = PrivateAttr(default=DEFAULT_CONFIG)
    _overrides: tuple[str, ...] = PrivateAttr(default=())

    def was_overridden(self, key: str) -> bool:
        """Whether a key such as dataset.seed was given on the command line."""
        return any(override.partition("=")[0] == key for override in self._overrides)

    def given(self, *sections: str) -> list[str]:
        """How this configuration was asked for, as words of a command line; overrides of other sections left out."""
        file = [] if self._file == DEFAULT_CONFIG else ["--config", str(self._file)]
        return [shlex.quote(word) for word in [*file, *(o for o in self._overrides if o.split(".")[0] in sections)]]
