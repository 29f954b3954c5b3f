"""Fingerprint of a host: the shards, settings and software that must be equal on all hosts.

This module does not import torch.
"""

import hashlib
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from model.config import Config
from pipeline.paths import ROOT
from pipeline.shards.index import Index

COMPARED_PACKAGES = ("torch", "deepspeed", "transformers", "numpy")
"""Packages whose version affects the results."""
HOST_SETTINGS = ("dataset.path", "shards.path", "shards.workers", "shards.cache", "shards.cache_gigabytes", "run.path")
"""Settings that may differ between hosts, as they do not affect the results. Rank 0's run.path is used."""
FIX_BY_KIND = {
    "shards": "copy the shards of the first host to that host, or write them there from the same dataset",
    "config": "use the same config file and ds_config.json on every host",
    "software": "install the same versions on that host: copy the project and its .venv, or run make setup",
}

Facts = dict[str, dict[str, Any]]
"""Facts of a host, by kind (a key of FIX_BY_KIND) and name."""


def collect_facts(config: Config, ds_config: Mapping[str, Any], index: Index | None) -> Facts:
    """Collect the facts of this host. index: None if there are no complete shards."""
    keys = ("missing or incomplete",) * 2 if index is None else (index.dataset_key[:16], index.key[:16])
    settings = {name: value for name, value in flatten(config.model_dump()).items() if name not in HOST_SETTINGS}
    packages = {name: find_package_version(name) or "not installed" for name in COMPARED_PACKAGES}
    own = {"promoter-bert": f"{find_package_version('promoter-bert')}, code {hash_code()}"}
    return {
        "shards": dict(zip(("dataset key", "shard key"), keys, strict=True)),
        "config": {**settings, **flatten(ds_config, "ds_config.")},
        "software": {"python": ".".join(platform.python_version_tuple()[:2]), **packages, **own},
    }


def find_differences(fingerprints: Sequence[tuple[str, Facts]]) -> dict[str, list[str]]:
    """Find the differences of hosts from the first one, by kind, each once; empty if the hosts agree.

    fingerprints: (host, facts) in the order of the ranks.
    """
    (first, expected), *others = fingerprints
    texts = {
        kind: [
            f"{name}: {value} on {first}, but {other} on {host}"
            for host, facts in others
            for name in {**expected[kind], **facts[kind]}
            if (value := expected[kind].get(name, "nothing")) != (other := facts[kind].get(name, "nothing"))
        ]
        for kind in FIX_BY_KIND
    }
    return {kind: list(dict.fromkeys(lines)) for kind, lines in texts.items() if lines}


def format_differences(by_kind: Mapping[str, Sequence[str]]) -> str:
    """Format all differences, with the fix for each kind."""
    lines = ["the hosts do not agree:"]
    for kind, texts in by_kind.items():
        lines += [*(f"  {text}" for text in texts), f"  fix: {FIX_BY_KIND[kind]}"]
    return "\n".join(lines)


def find_package_version(package: str) -> str | None:
    """Find the installed version of a package. Returns None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def hash_code(root: Path = ROOT) -> str:
    """Hash the Python files in pipeline/ and model/, as copies of one version may differ. Returns 12 hex digits.

    train.py and promoter_bert.py compute nothing, and sql/ affects only the dataset, whose key is compared.
    """
    digest = hashlib.sha256()
    for path in sorted([*root.glob("pipeline/**/*.py"), *root.glob("model/**/*.py")]):
        digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested settings to a dictionary of full names, such as shards.k."""
    settings: dict[str, Any] = {}
    for key, value in values.items():
        settings |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return settings
