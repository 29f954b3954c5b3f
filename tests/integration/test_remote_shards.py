"""Training from shards at a URL, over a connection that drops at times."""

import shutil

import pytest

from tests.integration.test_train import copy, weights  # noqa: F401
from tests.pipeline.file_server import Answers, serving

pytestmark = [pytest.mark.processes, pytest.mark.long]


def test_shards_from_the_web_train_the_same_model(trained, copy):  # noqa: F811
    files = {
        path.relative_to(copy.folder).as_posix(): path.read_bytes()
        for path in (copy.folder / "shards").rglob("*")
        if path.is_file()
    }
    shutil.rmtree(copy.folder / "shards")
    index_requests = 1
    statuses, cuts = [200] * index_requests, [10**9] * index_requests
    with serving(Answers(files, statuses=[*statuses, 503], cuts=[*cuts, 5000])) as server:
        path = f"shards.path={server.url}/shards"
        copy.run("python", "train.py", path)
        requests = [name for name, _ in server.requests]
        done = copy.run("python", "train.py", path, "shards.cache_gigabytes=1e-6", "run.name=small", check=False)
        assert done.returncode == 1
        assert "shards.cache_gigabytes" in done.stderr
        assert "got 1e-06" in done.stderr
        stale = copy.run("python", "train.py", path, "run.name=stale", "assay.flank=4", check=False)
        assert stale.returncode == 1
        assert "these shards are stale (assay.flank: 5 -> 4)" in stale.stderr
    shards = [name for name in requests if name.endswith(".tar")]
    assert len(shards) == len(set(shards)) + 2  # the server was busy once, and cut one off
    for model in ("pretrained", "model"):
        ours, theirs = (folder / "runs" / "paper" / model for folder in (copy.folder, trained.folder))
        assert weights(ours) == weights(theirs)
    assert all(path.suffix == ".tar" for path in (copy.folder / "shard-cache").iterdir())
