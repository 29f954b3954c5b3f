"""config.yaml and command-line overrides -> a checked configuration of any schema.

One file holds everything but DeepSpeed's own settings (ds_config.json). `key.path=value` overrides single values from
the command line. A wrong key, type or value is refused with the key's name.
"""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from pipeline.config.schema import DEFAULT_CONFIG, DataConfig
from pipeline.errors import UserError

C = TypeVar("C", bound=DataConfig)


def load_config(path: Path | str, overrides: Sequence[str], schema: type[C]) -> C:
    """Read a config file and apply `key.path=value` overrides.

    A file may name a `base:` file, relative to itself, and then states only what differs from it.
    Raises UserError naming the key that is unknown, missing, of the wrong type or impossible.
    """
    values = _read(Path(path))
    for override in overrides:
        _override(values, override, schema)
    for section in schema.SKIPPED_SECTIONS:
        values.pop(section, None)
    try:
        config = schema.model_validate(values)
    except ValidationError as error:
        raise UserError(_explain(error, path, overrides, schema)) from None
    config._file, config._overrides = Path(path), tuple(overrides)
    return config


def load_data_config(path: Path | str = DEFAULT_CONFIG, overrides: Sequence[str] = ()) -> DataConfig:
    """Read the sections assay, dataset and shards; see load_config."""
    return load_config(path, overrides, DataConfig)


def _override(values: dict[str, Any], override: str, schema: type[BaseModel]) -> None:
    """Set the value of a `key.path=value` text. Raises UserError where it is not YAML or its section is a value."""
    key, _, text = override.partition("=")
    try:
        value = _yaml(text) if text else ""  # nothing behind the sign: an empty text, as for an adapter
    except yaml.YAMLError as error:
        raise UserError(f"override {override!r}: the value is not YAML: {error}") from None
    *sections, leaf = key.split(".")
    if not isinstance(value, str) and _is_text(schema, *sections, leaf):
        value = text  # run.name=5 names a run
    target = values
    for section in sections:
        target = target.setdefault(section, {})
        if not isinstance(target, dict):
            raise UserError(f"override {override!r}: {section} is a value, not a section")
    target[leaf] = value


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


def _explain(error: ValidationError, path: Path | str, overrides: Sequence[str], schema: type[BaseModel]) -> str:
    """One line a wrong value, and where it came from."""
    problems = error.errors()
    from_override = {override.partition("=")[0] for override in overrides}
    lines = [
        f"  {name}: {_say(problem, schema)}" + (" (on the command line)" if name in from_override else "")
        for problem in problems
        for name in [_name(problem["loc"])]
    ]
    missing = [_name(problem["loc"]) for problem in problems if problem["type"] == "missing"]
    if missing:
        lines = [line for line in lines if not line.endswith(": missing")]
        lines.append(f"  missing: {', '.join(missing)}; a file of what differs only says on what: base: config.yaml")
    return "\n".join([f"{path}: the configuration cannot be used:", *lines])


def _say(error: Any, schema: type[BaseModel]) -> str:
    if error["type"] == "extra_forbidden":
        known = _keys_beside(error["loc"], schema)
        near = difflib.get_close_matches(str(error["loc"][-1]), known, 1)
        return f"unknown key; did you mean {near[0]}?" if near else f"unknown key; there are {', '.join(known)}"
    if error["type"] == "missing":
        return "missing"
    message = error["msg"].removeprefix("Value error, ")
    given = error["input"]
    if error["type"] == "string_type" and not isinstance(given, dict | list):
        return f"expected text, got {given!r}: put it in quotes"
    return message if isinstance(given, dict) else f"{message}, got {given!r}"


def sections_with(key: str, schema: type[BaseModel]) -> list[str]:
    """The full names of the keys that end in `key`: dataset.seed and run.seed for seed."""
    names = {name: field.annotation for name, field in schema.model_fields.items()}
    return [f"{name}.{key}" for name, section in names.items() if section and key in section.model_fields]


def _is_text(schema: type[BaseModel], *keys: str) -> bool:
    """Whether a key by its full name is one of text."""
    section: Any = schema
    for key in keys:
        field = getattr(section, "model_fields", {}).get(key)
        section = field.annotation if field else None
    return section is str


def _keys_beside(location: tuple[int | str, ...], schema: type[BaseModel]) -> list[str]:
    """The keys that are known where an unknown one stood."""
    section: Any = schema
    for part in location[:-1]:
        section = section.model_fields[part].annotation
    return list(section.model_fields)
