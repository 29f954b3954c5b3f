"""Fingerprint of a host: the shards, settings and software that must be equal on all hosts. Imports no torch."""

import hashlib
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from model.config import Config
from pipeline.paths import ROOT
from pipeline.shards.index import Index

COMPARED = ("torch", "deepspeed", "transformers", "numpy")
"""Packages whose version affects what a rank computes."""
PER_HOST = ("dataset.path", "shards.path", "shards.workers", "shards.cache", "shards.cache_gigabytes", "run.path")
"""Settings that may differ between hosts: they do not affect the results. The run.path of the first host is used."""
FIX_BY_KIND = {
    "shards": "copy the first host's shards there, or write them there from the same dataset",
    "config": "give every host the same config file and ds_config.json",
    "software": "install the same there: the project's copy and its .venv (make setup)",
}

Facts = dict[str, dict[str, Any]]
"""Facts of a host by kind (the keys of FIX_BY_KIND) and name."""


def facts_of(config: Config, ds_config: Mapping[str, Any], index: Index | None) -> Facts:
    """Collect this host's facts. index: None if there are no complete shards."""
    keys = ("none or not whole",) * 2 if index is None else (index.dataset_key[:16], index.key[:16])
    settings = {name: value for name, value in flat(config.model_dump()).items() if name not in PER_HOST}
    packages = {name: package_version(name) or "not installed" for name in COMPARED}
    own = {"promoter-bert": f"{package_version('promoter-bert')}, code {code_hash()}"}
    return {
        "shards": dict(zip(("dataset key", "shard key"), keys, strict=True)),
        "config": {**settings, **flat(ds_config, "ds_config.")},
        "software": {"python": ".".join(platform.python_version_tuple()[:2]), **packages, **own},
    }


def differences(of_ranks: Sequence[tuple[str, Facts]]) -> dict[str, list[str]]:
    """Describe how hosts differ from the first, by kind, each difference once; empty if they agree.

    of_ranks: (host, facts) in the order of the ranks.
    """
    (first, expected), *others = of_ranks
    texts = {
        kind: [
            f"{name}: {value} on {first}, but {other} on {host}"
            for host, facts in others
            for name in {**expected[kind], **facts[kind]}
            if (value := expected[kind].get(name, "nothing")) != (other := facts[kind].get(name, "nothing"))
        ]
        for kind in FIX_BY_KIND
    }
    return {kind: list(dict.fromkeys(of_kind)) for kind, of_kind in texts.items() if of_kind}


def explain_differences(by_kind: Mapping[str, Sequence[str]]) -> str:
    """Format all differences, with the fix for each kind."""
    lines = ["the hosts do not agree:"]
    for kind, texts in by_kind.items():
        lines += [*(f"  {text}" for text in texts), f"  -> {FIX_BY_KIND[kind]}"]
    return "\n".join(lines)


def package_version(package: str) -> str | None:
    """Return the installed version of a package, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def code_hash(root: Path = ROOT) -> str:
    """Hash the code in pipeline/ and model/, sub-folders included, as copies of one version number may differ.

    train.py and promoter_bert.py hold no computation, and sql/ affects the dataset only, whose key is compared.
    """
    digest = hashlib.sha256()
    for path in sorted([*root.glob("pipeline/**/*.py"), *root.glob("model/**/*.py")]):
        digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested settings to their full names."""
    named: dict[str, Any] = {}
    for key, value in values.items():
        named |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return named
