"""Probe of one host for `promoter-bert doctor`, which starts it over ssh as DeepSpeed starts a training."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from model.config import Config, load_config
from model.distributed.network import resolve_own_address
from model.runs.fingerprint import collect_facts
from model.training.ds_config import read_ds_config
from pipeline.dataset.built_settings import as_built
from pipeline.dataset.database import dataset_info, open_dataset
from pipeline.errors import UserError
from pipeline.shards.location import find_complete_index, find_index
from pipeline.shards.staleness import check_fresh

PATIENCE_S = 20.0
"""Time to wait for the connection of another host."""


def probe(config_path: str, overrides: list[str], ds_config: str, port: int, first: bool) -> dict[str, Any]:
    """Collect the facts of this host. first: whether it is the host of rank 0, which needs more facts.

    Raises UserError if the configuration is invalid here.
    """
    import torch

    config = load_config(config_path, overrides)
    ds_values = read_ds_config(Path(ds_config), cuda=True).values
    answer = {
        "host": socket.gethostname(),
        "own_address": resolve_own_address(),
        "facts": collect_facts(config, ds_values, find_complete_index(config)),
        "pkill": shutil.which("pkill") is not None,
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "cores": os.cpu_count(),
    }
    if first:
        addresses = subprocess.run(["hostname", "-I"], capture_output=True, text=True, check=False).stdout.split()
        answer |= {"address": addresses[0] if addresses else "", "port_problem": _check_port(port)}
        answer |= {"shards_problem": _check_shards(config), **_estimate_disk_space(config)}
    return {**answer, "time": time.time()}


def listen(port: int, connections: int, marker: str) -> dict[str, Any]:
    """Create the marker file and wait for one connection per other host; runs on the first host."""
    path, end = Path(marker), time.monotonic() + PATIENCE_S
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    try:
        with socket.create_server(("", port), backlog=connections) as server, suppress(TimeoutError):
            for _ in range(connections):
                server.settimeout(max(end - time.monotonic(), 0.01))
                with server.accept()[0] as link:
                    link.settimeout(PATIENCE_S)
                    link.recv(1)  # returns when the other host, which has looked for the marker, closes the link
    finally:
        path.unlink(missing_ok=True)
    return {}


def connect(address: str, port: int, marker: str) -> dict[str, Any]:
    """Connect to the first host and look for its marker file; runs on the other hosts.

    Returns `problem`, the error of the connection or an empty text, and `shared`, whether the marker was seen.
    """
    end = time.monotonic() + PATIENCE_S
    problem = ""
    while time.monotonic() < end:
        try:
            with socket.create_connection((address, port), timeout=5):
                trials = 20
                while not Path(marker).exists() and trials:
                    time.sleep(0.2)
                    trials -= 1
                return {"problem": "", "shared": Path(marker).exists()}
        except OSError as error:
            problem = error.strerror or str(error)
            time.sleep(0.3)
    return {"problem": problem, "shared": None}


def _check_port(port: int) -> str:
    """Return the error of listening on a port; empty if it is free."""
    try:
        socket.create_server(("", port)).close()
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _check_shards(config: Config) -> str:
    """Return the error that train.py would report for dataset and shards; empty if there is none."""
    try:
        with open_dataset(config.dataset.path, build_command=config.build_command) as connection:
            info = dataset_info(connection)
        built = as_built(config, info)
        check_fresh(find_index(built), built, info)
    except UserError as error:
        return str(error)
    return ""


def _estimate_disk_space(config: Config) -> dict[str, Any]:
    """Return the free bytes on the disk of the run, and estimate the bytes of its checkpoints and models."""
    folder = config.run.directory.absolute()
    while not folder.exists():
        folder = folder.parent
    model, vocabulary = config.model, 5 + 5**config.shards.k
    projections = 3 if model.architecture == "modernbert" else 2  # of a feed-forward block, gated or not
    layer = 4 * model.hidden**2 + projections * model.hidden * model.intermediate
    table, weights = vocabulary * model.hidden, model.layers * layer + 512 * model.hidden
    is_composed = model.kmer_embedding == "composed"  # then only exported models hold the table
    weights += 0 if is_composed else table
    checkpoints = 2 * (config.run.keep_checkpoints + 1)  # of two stages, each with one more while it is written
    return {
        "run_folder": str(folder),
        "free_bytes": shutil.disk_usage(folder).free,
        "writable": os.access(folder, os.W_OK),
        # Per weight: 16 bytes in a checkpoint (weight, two moments, working copy), 4 in each of four exported models.
        "needed_bytes": weights * (16 * checkpoints + 4 * 4) + is_composed * table * 4 * (checkpoints + 4),
    }


if __name__ == "__main__":
    commands: dict[str, Callable[..., dict[str, Any]]] = {"probe": probe, "listen": listen, "connect": connect}
    try:
        answer = commands[sys.argv[1]](**json.loads(sys.argv[2]))
    except (UserError, OSError) as problem:
        sys.exit(str(problem))
    sys.stdout.write(json.dumps(answer) + "\n")
