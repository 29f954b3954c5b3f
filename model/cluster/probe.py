"""Probe of one host for `promoter-bert doctor`; runs there, started over ssh as the training would be."""

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
"""Time to wait for another host's connection, or for a file to appear on a shared disk."""


def probe(config_path: str, overrides: list[str], ds_config: str, port: int, first: bool) -> dict[str, Any]:
    """Collect this host's facts. first: also those that only the host of rank 0 needs."""
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
        answer |= {"address": addresses[0] if addresses else "", "port_problem": _port_problem(port)}
        answer |= {"shards_problem": _shards_problem(config), **_disk(config)}
    return {**answer, "time": time.time()}


def listen(port: int, guests: int, marker: str) -> dict[str, Any]:
    """On the first host: wait until each other host has connected and looked for the marker file, created here."""
    path, end = Path(marker), time.monotonic() + PATIENCE_S
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    try:
        with socket.create_server(("", port), backlog=guests) as server, suppress(TimeoutError):
            for _ in range(guests):
                server.settimeout(max(end - time.monotonic(), 0.01))
                with server.accept()[0] as link:
                    link.settimeout(PATIENCE_S)
                    link.recv(1)  # closed after the other host has looked
    finally:
        path.unlink(missing_ok=True)
    return {}


def reach(address: str, port: int, marker: str) -> dict[str, Any]:
    """On another host: connect to the first, and look for the file that it has created."""
    end = time.monotonic() + PATIENCE_S
    problem = ""
    while time.monotonic() < end:
        try:
            with socket.create_connection((address, port), timeout=5):
                looks = 20
                while not Path(marker).exists() and looks:
                    time.sleep(0.2)
                    looks -= 1
                return {"problem": "", "shared": Path(marker).exists()}
        except OSError as error:
            problem = error.strerror or str(error)
            time.sleep(0.3)
    return {"problem": problem, "shared": None}


def _port_problem(port: int) -> str:
    try:
        socket.create_server(("", port)).close()
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _shards_problem(config: Config) -> str:
    """Return the error that train.py would report of dataset and shards; empty if there is none."""
    try:
        with open_dataset(config.dataset.path) as connection:
            info = dataset_info(connection)
        built = as_built(config, info)
        check_fresh(find_index(built), built, info)
    except UserError as error:
        return str(error)
    return ""


def _disk(config: Config) -> dict[str, Any]:
    """Return the free bytes of the run's disk, and an estimate of what its checkpoints and models take."""
    folder = config.run.directory.absolute()
    while not folder.exists():
        folder = folder.parent
    model, vocabulary = config.model, 5 + 5**config.shards.k
    layer = 4 * model.hidden**2 + 2 * model.hidden * model.intermediate
    weights = model.layers * layer + (vocabulary + 512) * model.hidden
    stages = 2 * (config.run.keep_checkpoints + 1)  # one more while a new one is written
    return {
        "run_folder": str(folder),
        "free_bytes": shutil.disk_usage(folder).free,
        "writable": os.access(folder, os.W_OK),
        "needed_bytes": weights * (16 * stages + 4 * 4),  # weight, two moments, working copy; the exported models
    }


if __name__ == "__main__":
    commands: dict[str, Callable[..., dict[str, Any]]] = {"probe": probe, "listen": listen, "reach": reach}
    try:
        answer = commands[sys.argv[1]](**json.loads(sys.argv[2]))
    except (UserError, OSError) as problem:
        sys.exit(str(problem))
    sys.stdout.write(json.dumps(answer) + "\n")
