"""Readers and writers of shards for tests."""

import hashlib
import json

from model.config import load_config
from pipeline.dataset.database import open_dataset
from tests.conftest import ROOT, SMALL


def hashes(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def with_shards_in(config, folder, *overrides):
    """Return the configuration with its shards in another folder."""
    places = [f"dataset.path={config.dataset.path}", f"shards.path={folder}"]
    return load_config(ROOT / "config.yaml", [*SMALL, *places, *overrides])


def signed(values):
    """Serialize an index of any JSON value, with the matching hash of its content."""
    if not isinstance(values, dict):
        return json.dumps(values).encode()
    content = {name: value for name, value in values.items() if name != "sha256"}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return json.dumps({**content, "sha256": digest}).encode()


def write_index(folder, values):
    """Write an index of any values, with the matching hash of its content."""
    (folder / "index.json").write_bytes(signed(values))


def rows_of(config, split):
    stage, part = split.split("/")
    with open_dataset(config.dataset.path) as connection:
        return connection.execute(
            f"select id, extended(sequence, {config.assay.flank}), expression from {stage} "
            "where split = ? order by position",
            [part],
        ).fetchall()
