"""What has to be the same on every host of a run: shards, settings, software. Imports no torch, so it is quick."""

import hashlib
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from model.config import Config
from pipeline.paths import ROOT
from pipeline.shards.index import Index

COMPARED = ("torch", "deepspeed", "transformers", "numpy")
"""Packages that decide what a rank computes, and in which order."""
OWN = ("dataset.path", "shards.path", "shards.workers", "shards.cache", "shards.cache_gigabytes", "run.path")
"""Settings that a host may have of its own: they change nothing that is computed. The first host's run.path counts."""
MENDED_BY = {
    "shards": "copy the first host's shards there, or write them there from the same dataset",
    "config": "give every host the same config file and ds_config.json",
    "software": "install the same there: the project's copy and its .venv (make setup)",
}

Facts = dict[str, dict[str, Any]]
"""By kind (the keys of MENDED_BY) and name."""


@dataclass(frozen=True)
class Difference:
    """A fact that is another one on a host than on the first."""

    kind: str
    name: str
    first: str
    expected: Any
    host: str
    got: Any

    def __str__(self) -> str:
        return f"{self.name}: {self.expected} on {self.first}, but {self.got} on {self.host}"


def facts_of(config: Config, ds_config: Mapping[str, Any], index: Index | None) -> Facts:
    """This host's facts. index: None where there are no whole shards."""
    keys = ("none or not whole",) * 2 if index is None else (index.dataset_key[:16], index.key[:16])
    settings = {name: value for name, value in flat(config.model_dump()).items() if name not in OWN}
    return {
        "shards": dict(zip(("dataset key", "shard key"), keys, strict=True)),
        "config": {**settings, **flat(ds_config, "ds_config.")},
        "software": software(),
    }


def differences(of_ranks: Sequence[tuple[str, Facts]]) -> list[Difference]:
    """How hosts differ from the first, each thing once. of_ranks: (host, facts) in the order of the ranks."""
    (first, expected), *others = of_ranks
    found = [
        Difference(kind, name, first, expected[kind].get(name, "nothing"), host, facts[kind].get(name, "nothing"))
        for kind in expected
        for host, facts in others
        for name in {**expected[kind], **facts[kind]}
    ]
    return list(dict.fromkeys(each for each in found if each.got != each.expected))


def explained(found: Sequence[Difference]) -> str:
    """All of them for a person, and how to mend each kind."""
    lines = ["the hosts do not agree:"]
    for kind, remedy in MENDED_BY.items():
        of_kind = [f"  {each}" for each in found if each.kind == kind]
        lines += [*of_kind, f"  -> {remedy}"] if of_kind else []
    return "\n".join(lines)


def software() -> dict[str, str]:
    """Python's and the compared packages' versions, and a hash of this project's own code."""
    python = {"python": ".".join(platform.python_version_tuple()[:2])}
    packages = {name: package_version(name) or "not installed" for name in COMPARED}
    return {**python, **packages, "promoter-bert": f"{package_version('promoter-bert')}, code {code_hash()}"}


def package_version(package: str) -> str | None:
    """The installed version; None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def code_hash() -> str:
    """First 12 digits of the hash of pipeline/ and model/: copies of one version number may differ."""
    digest = hashlib.sha256()
    for path in sorted([*ROOT.glob("pipeline/**/*.py"), *ROOT.glob("model/**/*.py")]):
        digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by their full names."""
    named: dict[str, Any] = {}
    for key, value in values.items():
        named |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return named
