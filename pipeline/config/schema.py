"""config.yaml as typed, checked objects. A wrong key, type or value is refused with the key's name.

One file holds everything but DeepSpeed's own settings (ds_config.json). `key.path=value` overrides single
values from the command line.
"""

import difflib
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    model_validator,
)

from pipeline.errors import UserError
from pipeline.paths import shipped

DEFAULT_CONFIG = shipped("config.yaml")

Bases = Annotated[str, Field(pattern="^[ACGTN]*$")]
Share = Annotated[float, Field(gt=0, le=1)]
StageName = Literal["pretrain", "finetune"]
Stages = Literal["pretrain", "finetune", "both"]
"""What is asked for of a run."""
STAGES: tuple[StageName, ...] = ("pretrain", "finetune")
"""In their order."""


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


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Assay(_Section):
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


class Dataset(_Section):
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


class Shards(_Section):
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


class Model(_Section):
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


class Plateau(_Section):
    """torch's ReduceLROnPlateau on the stage's validation metric (higher is better)."""

    factor: Annotated[float, Field(gt=0, lt=1)]
    """The learning rate is multiplied by this."""
    patience: Annotated[int, Field(ge=0)]
    """Evaluations without improvement that are waited for before."""
    threshold: Annotated[float, Field(ge=0)]
    """Relative improvement that counts."""
    min_lr: Annotated[float, Field(ge=0)]


class Stage(_Section):
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


class Run(_Section):
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


class Config(_Section):
    """Everything but DeepSpeed's own settings."""

    run: Run
    assay: Assay
    dataset: Dataset
    shards: Shards
    model: Model
    pretrain: Pretrain
    finetune: Finetune
    _file: Path = PrivateAttr(default=DEFAULT_CONFIG)
    _overrides: tuple[str, ...] = PrivateAttr(default=())

    def stage(self, name: StageName) -> Stage:
        """The section of a stage."""
        return self.pretrain if name == "pretrain" else self.finetune

    def stages(self, asked: Stages) -> list[StageName]:
        """Those that a run goes through where these are asked for, in their order."""
        if asked == "both":
            return list(STAGES) if self.finetune.wants_pretraining else ["finetune"]
        return [asked]

    def was_overridden(self, key: str) -> bool:
        """Whether a key such as dataset.seed was given on the command line."""
        return any(override.partition("=")[0] == key for override in self._overrides)

    def given(self, *sections: str) -> list[str]:
        """How this configuration was asked for, as words of a command line; overrides of other sections left out."""
        file = [] if self._file == DEFAULT_CONFIG else ["--config", str(self._file)]
        return [shlex.quote(word) for word in [*file, *(o for o in self._overrides if o.split(".")[0] in sections)]]


def load_config(path: Path | str = DEFAULT_CONFIG, overrides: list[str] | tuple[str, ...] = ()) -> Config:
    """Read a config file and lay `key.path=value` overrides over it.

    A file may name a `base:` file, relative to itself, and then states only what differs from it.
    Raises UserError naming the key that is unknown, missing, of the wrong type or impossible.
    """
    values = _read(Path(path))
    for override in overrides:
        key, _, text = override.partition("=")
        try:
            value = _yaml(text) if text else ""  # nothing behind the sign: an empty text, as for an adapter
        except yaml.YAMLError as error:
            raise UserError(f"override {override!r}: the value is not YAML: {error}") from None
        *sections, leaf = key.split(".")
        if not isinstance(value, str) and _is_text(*sections, leaf):
            value = text  # run.name=5 names a run
        target = values
        for section in sections:
            target = target.setdefault(section, {})
            if not isinstance(target, dict):
                raise UserError(f"override {override!r}: {section} is a value, not a section")
        target[leaf] = value
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        raise UserError(_explain(error, path, overrides)) from None
    config._file, config._overrides = Path(path), tuple(overrides)
    return config


def _read(path: Path) -> dict[str, Any]:
    try:
        values = _yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot read the configuration: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not YAML: {error}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected sections (run, assay, dataset, ...), got {type(values).__name__}")
    base = values.pop("base", None)
    if base is None:
        return values
    if not isinstance(base, str):
        raise UserError(f"{path}: base: expected a file name")
    return _merge(_read(path.parent / base), values)


def _merge(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(under)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


class _Loader(yaml.SafeLoader):
    """YAML in which 1e-4 is a number (YAML 1.1 wants 1.0e-4) and a key written twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=deep) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"{key!r} stands twice", node.start_mark)
        return super().construct_mapping(node, deep)

    def construct_scalar_or_number(self, node: yaml.ScalarNode) -> str | float:
        text = self.construct_scalar(node)
        if node.style is None and "e" in text.lower() and text[0] in "0123456789.+-":
            try:
                return float(text)
            except ValueError:
                return text
        return text


_Loader.add_constructor("tag:yaml.org,2002:str", _Loader.construct_scalar_or_number)


def _yaml(text: str) -> Any:
    return yaml.load(text, _Loader)


def _name(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in location) or "(file)"


def _explain(error: ValidationError, path: Path | str, overrides: Sequence[str]) -> str:
    """One line a wrong value, and where it came from."""
    problems = error.errors()
    from_override = {override.partition("=")[0] for override in overrides}
    lines = [
        f"  {name}: {_say(problem)}" + (" (on the command line)" if name in from_override else "")
        for problem in problems
        for name in [_name(problem["loc"])]
    ]
    missing = [_name(problem["loc"]) for problem in problems if problem["type"] == "missing"]
    if missing:
        lines = [line for line in lines if not line.endswith(": missing")]
        lines.append(f"  missing: {', '.join(missing)}; a file of what differs only says on what: base: config.yaml")
    return "\n".join([f"{path}: the configuration cannot be used:", *lines])


def _say(error: Any) -> str:
    if error["type"] == "extra_forbidden":
        known = _keys_beside(error["loc"])
        near = difflib.get_close_matches(str(error["loc"][-1]), known, 1)
        return f"unknown key; did you mean {near[0]}?" if near else f"unknown key; there are {', '.join(known)}"
    if error["type"] == "missing":
        return "missing"
    message = error["msg"].removeprefix("Value error, ")
    given = error["input"]
    if error["type"] == "string_type" and not isinstance(given, dict | list):
        return f"expected text, got {given!r}: put it in quotes"
    return message if isinstance(given, dict) else f"{message}, got {given!r}"


def sections_with(key: str) -> list[str]:
    """The full names of the keys that end in `key`: dataset.seed and run.seed for seed."""
    names = {name: field.annotation for name, field in Config.model_fields.items()}
    return [f"{name}.{key}" for name, section in names.items() if section and key in section.model_fields]


def _is_text(*keys: str) -> bool:
    """Whether a key by its full name is one of text."""
    section: Any = Config
    for key in keys:
        field = getattr(section, "model_fields", {}).get(key)
        section = field.annotation if field else None
    return section is str


def _keys_beside(location: tuple[int | str, ...]) -> list[str]:
    """The keys that are known where an unknown one stood."""
    section: Any = Config
    for part in location[:-1]:
        section = section.model_fields[part].annotation
    return list(section.model_fields)
