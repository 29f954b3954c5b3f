"""Settings of the sections assay, dataset and shards, as typed and validated objects."""

import shlex
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from pipeline.paths import shipped

MIN_OVERLAP, MAX_OVERLAP = 15, 500
"""Limits of dataset.group_overlap. Shorter runs occur in unrelated inserts by chance."""
DEFAULT_CONFIG = shipped("config.yaml")
SEQUENCE_NAME = "promoter"
"""Word for one measured sequence, unless assay.name says otherwise."""

Bases = Annotated[str, Field(pattern="^[ACGTN]*$")]
Fraction = Annotated[float, Field(gt=0, le=1)]


def _check_size(size: float) -> float:
    if size >= 1 and not float(size).is_integer():
        raise ValueError("expected a whole number of rows, or a fraction below 1")
    return size


Size = Annotated[float, Field(ge=0), AfterValidator(_check_size)]
"""Below 1: a fraction of the rows; from 1 on: a number of rows."""
Count = Annotated[int, Field(ge=1)]


def _check_all_or_size(size: Any) -> Any:
    """Check `all` and sizes in one function: pydantic would report an invalid value once per type."""
    if size == "all":
        return size
    if isinstance(size, bool) or not isinstance(size, int | float) or not size >= 0:
        raise ValueError("expected all, a whole number of rows, or a fraction below 1")
    return _check_size(size)


AllOrSize = Annotated[Literal["all"] | float, BeforeValidator(_check_all_or_size)]


def _check_overlap(bases: int) -> int:
    if bases and not MIN_OVERLAP <= bases <= MAX_OVERLAP:
        raise ValueError(f"expected 0, or {MIN_OVERLAP} to {MAX_OVERLAP} bases")
    return bases


class Section(BaseModel):
    """A section of the configuration. Unknown keys and values of another type are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    LATER_SETTINGS: ClassVar[tuple[str, ...]] = ()
    """Settings that older datasets, runs and models do not record: omitted from a dump at their defaults."""

    @model_serializer(mode="wrap")
    def _omit_later_settings(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = dump(self)
        for name in self.LATER_SETTINGS:
            if getattr(self, name) == type(self).model_fields[name].default:
                values.pop(name, None)
        return values


class Assay(Section):
    """The measured construct. Another reporter assay needs other values here, but no other code."""

    LATER_SETTINGS = ("adapter_mismatches", "name", "unit")

    left_adapter: Bases
    """Bases before the insert in every sequence; removed before the flanks are added."""
    right_adapter: Bases
    """Bases after the insert in every sequence; removed before the flanks are added."""
    upstream: Bases
    """Plasmid sequence before the insert, left adapter included. Its last bases are the left flank."""
    downstream: Bases
    """Plasmid sequence after the insert, right adapter included. Its first bases are the right flank."""
    flank: Annotated[int, Field(ge=0)]
    """Bases of plasmid added on each side of the insert."""
    min_insert: Annotated[int, Field(ge=0)]
    """Shortest valid insert, in bases."""
    max_insert: Count
    """Longest valid insert, in bases."""
    min_expression: float
    """Lowest valid label."""
    max_expression: float
    """Highest valid label."""
    white_space: Literal["reject", "strip"]
    """White space in a sequence: strip removes it, and joins overlapping k-mers."""
    lower_case: Literal["reject", "upper"]
    """Bases in lower case: upper converts them."""
    uracil: Literal["reject", "thymine"]
    """U in place of T: thymine converts it."""
    iupac: Literal["reject", "n"]
    """Codes for several bases, such as R for A or G: n converts each to N."""
    missing_adapters: Literal["reject", "add"]
    """Sequences without either adapter: add treats them as bare inserts."""
    adapter_mismatches: Annotated[int, Field(ge=0, le=5)] = 0
    """Adapters with up to this many substitutions each are recognised, and replaced by the exact ones."""
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9'’′ -]{0,39}$")] = SEQUENCE_NAME
    """Word for one sequence in output and pages, such as enhancer or 5' UTR. Its plural ends in s."""
    unit: Annotated[str, Field(pattern=r"^([^\s$\x00-\x1f]([^$\x00-\x1f\x7f]{0,38}[^\s$\x00-\x1f\x7f])?)?$")] = ""
    """Unit of expression on axes and pages, such as log2(RNA/DNA). Empty: arbitrary units."""

    @model_validator(mode="after")
    def _check_values(self) -> "Assay":
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
        """Return the bases added before an insert."""
        return self.upstream[len(self.upstream) - self.flank :]

    @property
    def right_flank(self) -> str:
        """Return the bases added after an insert."""
        return self.downstream[: self.flank]


def _as_text(values: Any) -> Any:
    """Convert whole numbers in a list to text: [9, 10] names folds. Empty text is an empty list: `valid_values=`."""
    if values == "":
        return []
    if not isinstance(values, list):
        return values
    return [str(value) if isinstance(value, int) and not isinstance(value, bool) else value for value in values]


Values = Annotated[list[str], BeforeValidator(_as_text)]

SPLIT_SETTINGS = {
    "column": ("split_column", "train_values", "valid_values", "test_values"),
    "grouped": ("group_column", "group_overlap"),
}
"""Settings that only one kind of split uses. build --train FILE uses valid_from_train with any kind."""


class Dataset(Section):
    """Construction of the dataset. A size below 1 is a fraction of the rows, from 1 on a number of rows."""

    LATER_SETTINGS = (
        "sequence_column",
        "labels",
        "cut_label",
        "split_column",
        "train_values",
        "valid_values",
        "test_values",
        "valid_from_train",
        "where",
        "group_column",
        "group_overlap",
    )

    path: str
    """The DuckDB file. The Parquet files are beside it."""
    seed: Annotated[int, Field(ge=0)]
    """Random seed of the splits: hashed with each sequence, it sets the order from which the splits are taken."""
    duplicates: Literal["keep", "first", "average"]
    """Equal sequences: keep all, keep the first in the input, or average their labels into one row."""
    split: Literal["random", "grouped", "column"]
    """grouped keeps equal and near-duplicate inserts in one split; column takes the splits from split_column."""
    max_mismatches: Annotated[int, Field(ge=0, le=8)]
    """Inserts that differ by at most this many mismatches, or by one indel, are near-duplicates, on either strand."""
    top_fraction: Fraction
    """Fraction of the promoters, highest expression first, for pretraining; ties at the threshold are included."""
    pretrain_valid: Size
    """Pretraining rows held out for validation: a size."""
    pretrain_valid_at_most: Count
    """Upper limit of pretrain_valid, in rows."""
    finetune_valid: Size
    """Fine-tuning rows held out for validation: a size."""
    finetune_test: Size
    """Fine-tuning rows held out for testing: a size."""
    finetune_train: AllOrSize
    """Fine-tuning rows to train on. all: every row that is not held out; a fraction refers to all promoters."""
    sequence_column: str = ""
    """Column of sequences: its name, or its number from 1; empty: detected. --sequence-column overrides it."""
    labels: Values = []
    """Columns of labels; empty: one, detected. --expression-column overrides it."""
    cut_label: str = ""
    """Several labels: the one whose top fraction is pretrained on, or max: the highest standardized one; empty: the
    first."""
    split_column: str = ""
    """split=column: the column of the splits of fine-tuning."""
    train_values: Values = []
    """split=column: values of training rows. Empty: all other values, or train and training if no values are set."""
    valid_values: Values = []
    """split=column: values of validation rows. Empty: val, valid, validation and dev if no values are set."""
    test_values: Values = []
    """split=column: values of test rows. Empty: test and testing if no values are set."""
    valid_from_train: Size = 0
    """split=column without validation rows: training rows to take for validation at random: a size."""
    where: str = ""
    """SQL filter over the columns of the input, such as lfcSE < 1; other rows are rejected."""
    group_column: str = ""
    """split=grouped: rows with one value in this column of the input are in one split. Empty: no column."""
    group_overlap: Annotated[int, AfterValidator(_check_overlap)] = 0
    """split=grouped: inserts that share a run of this many bases, on either strand, are in one split. 0: off."""

    @model_validator(mode="after")
    def _check_values(self) -> "Dataset":
        held_out = self.finetune_valid, self.finetune_test
        if max(held_out) < 1 <= sum(held_out):
            raise ValueError(f"finetune_valid {held_out[0]} and finetune_test {held_out[1]} leave nothing to train on")
        for split, names in SPLIT_SETTINGS.items():
            unused = [f"{name} {value!r}" for name in names if (value := getattr(self, name)) and split != self.split]
            if unused:
                verb = "has" if len(unused) == 1 else "have"
                raise ValueError(
                    f"{', '.join(unused)} {verb} no effect with split {self.split!r}: such settings need "
                    f"split={split}; fix: dataset.split={split}, or {self.switch_split(self.split)}"
                )
        return self

    def switch_split(self, split: str) -> str:
        """Return the overrides that switch to another kind of split: they empty the settings of other kinds."""
        unused = [name for kind, names in SPLIT_SETTINGS.items() if kind != split for name in names]
        empty = [f"dataset.{name}={0 if name == 'group_overlap' else ''}" for name in unused if getattr(self, name)]
        return " ".join([f"dataset.split={split}", *empty])


class Shards(Section):
    """Token shards of the promoters."""

    path: Annotated[str, Field(min_length=1)]
    """Folder, or URL such as s3://bucket/shards. Sub-folder k3 holds the shards of k = 3."""
    k: Annotated[int, Field(ge=1, le=8)]
    """Bases per token."""
    record_promoters: Annotated[int, Field(ge=1, le=1_000_000)]
    """Promoters per record, the unit that is read into memory."""
    shard_megabytes: Annotated[float, Field(gt=0)]
    """Target size of a shard file, in 10^6 bytes before compression."""
    compression: Literal["none", "zstd"]
    """zstd makes shards six times smaller, but webdataset then needs a decoder."""
    workers: Count
    """Number of writer processes."""
    cache: str
    """Folder for local copies of shards from a URL."""
    cache_gigabytes: Annotated[float, Field(gt=0)]
    """Maximum size of the cache folder, in 10^9 bytes."""


class DataConfig(Section):
    """The sections that the packages of pipeline/ read."""

    SKIPPED_SECTIONS: ClassVar[tuple[str, ...]] = ("run", "model", "pretrain", "finetune")
    """Sections of the same file that this schema ignores; only training reads them."""

    assay: Assay
    dataset: Dataset
    shards: Shards
    _source_file: Path = PrivateAttr(default=DEFAULT_CONFIG)
    _applied_overrides: tuple[str, ...] = PrivateAttr(default=())

    def was_overridden(self, key: str) -> bool:
        """Return whether an override set a key such as dataset.seed."""
        return any(override.partition("=")[0] == key for override in self._applied_overrides)

    @property
    def build_command(self) -> str:
        """Format the command that builds the dataset, with this file and overrides."""
        return " ".join(["promoter-bert build FILE", *self.format_arguments("assay", "dataset")])

    def format_arguments(self, *sections: str) -> list[str]:
        """Quote the arguments that load these sections: the file unless it is the default, and overrides."""
        file = [] if self._source_file == DEFAULT_CONFIG else ["--config", str(self._source_file)]
        overrides = [override for override in self._applied_overrides if override.split(".")[0] in sections]
        return [shlex.quote(argument) for argument in [*file, *overrides]]
