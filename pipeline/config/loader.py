"""Load a YAML file and command-line overrides as a validated configuration of any schema.

One file holds all settings but DeepSpeed's own (ds_config.json). An override `section.key=value` replaces one value.
An error names the key whose name, type or value is wrong.
"""

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from pipeline.config.schema import DEFAULT_CONFIG, DataConfig
from pipeline.errors import UserError

C = TypeVar("C", bound=DataConfig)


def load_config(path: Path | str, overrides: Sequence[str], schema: type[C]) -> C:
    """Load a config file with `section.key=value` overrides.

    A file may name a `base:` file, relative to itself, and then holds only what differs from it.
    Raises UserError that names each key that is unknown, missing, of the wrong type or invalid.
    """
    values = _read(Path(path))
    for override in overrides:
        _apply(override, values, schema)
    for section in schema.SKIPPED_SECTIONS:
        values.pop(section, None)
    try:
        config = schema.model_validate(values)
    except ValidationError as error:
        raise UserError(_describe_all(error, path, overrides, schema)) from None
    config._source_file, config._applied_overrides = Path(path), tuple(overrides)
    return config


def load_data_config(path: Path | str = DEFAULT_CONFIG, overrides: Sequence[str] = ()) -> DataConfig:
    """Load the sections assay, dataset and shards; see load_config."""
    return load_config(path, overrides, DataConfig)


def _apply(override: str, values: dict[str, Any], schema: type[BaseModel]) -> None:
    """Set the value of an override."""
    key, _, text = override.partition("=")
    try:
        value = _yaml(text) if text else ""  # for an empty adapter
    except yaml.YAMLError as error:
        raise UserError(f"override {override!r}: the value is not YAML: {error}") from None
    *sections, leaf = key.split(".")
    if not isinstance(value, str) and _type_of(key.split("."), schema) is str:
        value = text  # run.name=5 is the name "5"
    target = values
    for section in sections:
        target = target.setdefault(section, {})
        if not isinstance(target, dict):
            raise UserError(f"override {override!r}: {section} is a value, not a section")
    target[leaf] = value


def _read(path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Read a file and its bases. above: the files whose base it is."""
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
        raise UserError(f"{path}: base: expected a file name, got {base!r}")
    above = (*above, path.resolve())
    if (path.parent / base).resolve() in above:
        raise UserError(f"{path}: base: {base} has this file as its own base")
    return _merge(_read(path.parent / base, above), values)


def _merge(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Merge sections; values of `over` win."""
    merged = dict(under)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


class _Loader(yaml.SafeLoader):
    """YAML that reads 1e-4 as a number (YAML 1.1 needs 1.0e-4), and in which a duplicate key is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=deep) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"duplicate key {key!r}", node.start_mark)
        return super().construct_mapping(node, deep)


_EXPONENT = re.compile(r"[-+]?(\d[\d_]*\.?[\d_]*|\.\d+)e[-+]?\d+$", re.IGNORECASE)
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+.0123456789"))


def _yaml(text: str) -> Any:
    return yaml.load(text, _Loader)


def _describe_all(error: ValidationError, path: Path | str, overrides: Sequence[str], schema: type[BaseModel]) -> str:
    """Describe the invalid values of a file, one per line; those of overrides are marked."""
    overridden = {override.partition("=")[0] for override in overrides}
    lines, missing = [f"{path}: invalid configuration:"], []
    for problem in error.errors():
        name = ".".join(map(str, problem["loc"])) or "(file)"
        if problem["type"] == "missing":
            missing.append(name)
        else:
            lines.append(f"  {name}: {_describe(problem, schema)}{' (on the command line)' * (name in overridden)}")
    if missing:
        lines.append(f"  missing: {', '.join(missing)}; fix: to state only what differs, add base: config.yaml")
    return "\n".join(lines)


def _describe(problem: Any, schema: type[BaseModel]) -> str:
    """Describe one of pydantic's errors."""
    if problem["type"] == "extra_forbidden":
        *sections, key = problem["loc"]
        known = list(_type_of(sections, schema).model_fields)
        near = difflib.get_close_matches(str(key), known, 1)
        return f"unknown key; did you mean {near[0]}?" if near else f"unknown key; expected one of {', '.join(known)}"
    message, value = problem["msg"].removeprefix("Value error, "), problem["input"]
    if problem["type"] == "string_type" and not isinstance(value, dict | list):
        return f"expected text, got {value!r}: put it in quotes"
    return message if isinstance(value, dict) else f"{message}, got {value!r}"


def sections_with(key: str, schema: type[BaseModel]) -> list[str]:
    """List the full names of the keys that end in `key`: dataset.seed and run.seed for seed."""
    return [f"{section}.{key}" for section in schema.model_fields if _type_of([section, key], schema)]


def _type_of(keys: Sequence[Any], schema: type[BaseModel]) -> Any:
    """Find the type of the value at a path of keys; None for an unknown key."""
    kind: Any = schema
    for key in keys:
        field = getattr(kind, "model_fields", {}).get(key)
        kind = field.annotation if field else None
    return kind
