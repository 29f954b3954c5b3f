"""Shards written on a Ray cluster of two nodes on this machine, one of which is lost during the run."""

import json
import os
import subprocess
import time

import pytest

from pipeline.errors import UserError
from pipeline.shards.executors import write_on_ray
from pipeline.shards.location import shard_folder
from pipeline.shards.plan import SPLITS
from pipeline.shards.verify import verify_shards
from pipeline.shards.write import write_shards
from tests.integration.conftest import BIN
from tests.pipeline.shards.shard_files import hashes, with_shards_in
from tests.pipeline.shards.test_store import download

pytestmark = [pytest.mark.processes, pytest.mark.long]

MANY = "shards.record_promoters=10", "shards.shard_megabytes=0.002"


@pytest.fixture
def cluster(monkeypatch, s3):
    """Start two nodes of one core; their processes reach the S3 server."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    made.second = made.add_node(num_cpus=1)
    made.wait_for_nodes()
    ray.init(address=made.address, logging_level="error", log_to_driver=False)
    yield made
    ray.shutdown()
    made.shutdown()


def alive(ray):
    """Wait until the cluster has noticed the loss; return the nodes."""
    deadline = time.monotonic() + 60
    while sum(node["Alive"] for node in ray.nodes()) > 1 and time.monotonic() < deadline:
        time.sleep(0.2)
    return sum(node["Alive"] for node in ray.nodes())


@pytest.mark.timeout(200)
def test_loss_of_a_ray_node_changes_no_bytes(made, tmp_path, cluster, s3):
    """The other node writes its shards; the bytes equal those of a local run, in a folder and in a bucket."""
    import ray

    whole = with_shards_in(made.config, tmp_path / "whole", *MANY)
    write_shards(whole)
    config = with_shards_in(made.config, tmp_path / "shared", *MANY)
    lost_at = []

    def lose_a_node(done, total, _size):
        if done > 0.2 * total and not lost_at:
            lost_at.append(done)
            cluster.remove_node(cluster.second, allow_graceful=False)

    written = write_shards(config, SPLITS, write_on_ray, lose_a_node)
    # A retry finds the shard that the lost node had just finished.
    assert written.shards - 1 <= written.written <= written.shards == 100
    assert alive(ray) == 1
    assert 0 < lost_at[0] < written.rows
    assert hashes(shard_folder(config)) == hashes(shard_folder(whole))
    verify_shards(shard_folder(config))

    write_shards(with_shards_in(made.config, s3), SPLITS, write_on_ray)
    assert hashes(download(f"{s3}/k3", tmp_path / "k3")) == hashes(made.shards)

    with pytest.raises(UserError, match="cannot"):  # a user's mistake comes back from the node as one
        write_shards(with_shards_in(made.config, "s3://nowhere"), SPLITS, write_on_ray)

    # The command finds the cluster that runs on this machine.
    dataset = os.path.relpath(made.config.dataset.path, tmp_path)
    command = [
        str(BIN / "promoter-bert"), "shards", "--dataset", dataset, "--out", "typed",
        "--executor", "ray", "--stage", "finetune", "--split", "test", "--json", "assay.flank=5",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["written"] == 1
