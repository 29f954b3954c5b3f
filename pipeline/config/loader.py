"""Load a YAML file and command-line overrides as a validated configuration of any schema.

One file holds all settings except DeepSpeed's own (ds_config.json). An override `section.key=value` replaces one value.
An error names the invalid key.
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
from pipeline.paths import ASSAYS, looked_in, shipped, suggest_file

C = TypeVar("C", bound=DataConfig)


def load_config(path: Path | str, overrides: Sequence[str], schema: type[C]) -> C:
    """Load a config file with `section.key=value` overrides.

    A file may name a `base:` file, relative to itself or to the project, and then holds only the values that differ.
    Raises UserError for a file that cannot be read, and for unknown, missing or invalid keys, with the name of each.
    """
    values = _read_file(Path(path))
    for override in overrides:
        _apply_override(override, values, schema)
    for section in schema.SKIPPED_SECTIONS:
        values.pop(section, None)
    try:
        config = schema.model_validate(values)
    except ValidationError as error:
        raise UserError(_describe_errors(error, path, overrides, schema)) from None
    config._source_file, config._applied_overrides = Path(path), tuple(overrides)
    return config


def load_data_config(path: Path | str = DEFAULT_CONFIG, overrides: Sequence[str] = ()) -> DataConfig:
    """Load the sections assay, dataset and shards. Raises UserError for the errors of load_config."""
    return load_config(path, overrides, DataConfig)


def _apply_override(override: str, values: dict[str, Any], schema: type[BaseModel]) -> None:
    """Set the value of an override `section.key=value` in nested values."""
    key, _, text = override.partition("=")
    is_text = _find_type(key.split("."), schema) is str
    try:
        value = _parse_yaml(text) if text else ""  # an adapter may be empty
    except yaml.YAMLError as error:
        if not is_text:
            raise UserError(f"override {override!r}: invalid value; expected YAML: {error}") from None
        value = text  # the filter "a b" < 1 is no YAML
    *sections, leaf = key.split(".")
    if not isinstance(value, str) and is_text:
        value = text  # run.name=5 is the name "5"
    target = values
    for section in sections:
        target = target.setdefault(section, {})
        if not isinstance(target, dict):
            raise UserError(f"override {override!r}: {section} is a value, not a section; expected section.key=value")
    target[leaf] = value


def _read_file(path: Path, chain: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Read a file and its base files. chain: the files that are based on this one."""
    try:
        values = _parse_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        near = _suggest_file(path) if isinstance(error, FileNotFoundError) else ""
        raise UserError(f"{path}: cannot read the configuration: {error.strerror}{looked_in(path)}{near}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: invalid YAML: {error}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected sections (run, assay, dataset, ...), got {type(values).__name__}")
    base = values.pop("base", None)
    if base is None:
        return values
    if not isinstance(base, str):
        raise UserError(f"{path}: base: expected a file name, got {base!r}")
    chain = (*chain, path.resolve())
    source = shipped(base, path.parent)
    if source.resolve() in chain:
        raise UserError(f"{path}: base: {base} is itself based on this file; expected no cycle")
    return _merge(_read_file(source, chain), values)


def _suggest_file(path: Path) -> str:
    """Suggest a configuration file of a similar name in the same folder, or else the preset of an assay."""
    if near := suggest_file(path, (".yaml", ".yml")):
        return near
    return f"; fix: promoter-bert init --assay {path.stem}" if (ASSAYS / f"{path.stem}.yaml").exists() else ""


def _merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Merge nested sections; the values of `changes` win."""
    merged = dict(base)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


class _Loader(yaml.SafeLoader):
    """YAML loader that reads 1e-4 as a number (YAML 1.1 needs 1.0e-4) and rejects duplicate keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=deep) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"duplicate key {key!r}", node.start_mark)
        return super().construct_mapping(node, deep)


_EXPONENT = re.compile(r"[-+]?(\d[\d_]*\.?[\d_]*|\.\d+)e[-+]?\d+$", re.IGNORECASE)
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+.0123456789"))


def _parse_yaml(text: str) -> Any:
    return yaml.load(text, _Loader)


def _describe_errors(
    error: ValidationError, path: Path | str, overrides: Sequence[str], schema: type[BaseModel]
) -> str:
    """Describe the invalid values of a file and of overrides, one per line."""
    in_file: list[str] = []
    in_overrides: list[str] = []
    missing: list[str] = []
    for problem in error.errors():
        name = ".".join(map(str, problem["loc"])) or "(file)"
        if problem["type"] == "missing":
            missing.append(name)
            continue
        is_unknown = problem["type"] == "extra_forbidden"
        keys = (override.partition("=")[0] for override in overrides)
        overridden = any(key == name or (is_unknown and key.startswith(f"{name}.")) for key in keys)
        (in_overrides if overridden else in_file).append(f"  {name}: {_describe_error(problem, schema)}")
    if missing:
        in_file.append(f"  missing: {', '.join(missing)}; fix: add base: config.yaml to take them from that file")
    places = ((str(path), in_file), ("command line", in_overrides))
    return "\n".join(line for place, lines in places if lines for line in (f"{place}: invalid configuration:", *lines))


def _describe_error(problem: Any, schema: type[BaseModel]) -> str:
    """Describe one of pydantic's errors."""
    if problem["type"] == "extra_forbidden":
        *sections, key = problem["loc"]
        if not sections and (names := find_keys(str(key), schema)):
            return f"the section is missing; expected {' or '.join(names)} as the key"
        known = list(_find_type(sections, schema).model_fields)
        near = difflib.get_close_matches(str(key), known, 1)
        return f"unknown key; did you mean {near[0]}?" if near else f"unknown key; expected one of {', '.join(known)}"
    message, value = problem["msg"].removeprefix("Value error, "), problem["input"]
    if problem["type"] == "string_type" and not isinstance(value, dict | list):
        return f"expected text, got {value!r}; fix: put it in quotes"
    return message if isinstance(value, dict) else f"{message}, got {value!r}"


def find_keys(key: str, schema: type[BaseModel]) -> list[str]:
    """List the full names of the keys that end in `key`, such as dataset.seed and run.seed for seed."""
    return [f"{section}.{key}" for section in schema.model_fields if _find_type([section, key], schema)]


def _find_type(keys: Sequence[Any], schema: type[BaseModel]) -> Any:
    """Find the type of the value at a path of keys; None for an unknown key."""
    kind: Any = schema
    for key in keys:
        field = getattr(kind, "model_fields", {}).get(key)
        kind = field.annotation if field else None
    return kind
