"""The commands doctor and relaunch: trainings on several hosts, and unattended ones."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from model.cli.options import configuration
from pipeline.cli.options import ConfigFile, Json, print_result
from pipeline.config.schema import DEFAULT_CONFIG
from pipeline.paths import shipped
from pipeline.runtime.progress import emit
from pipeline.runtime.text import format_count


def doctor(
    context: typer.Context,
    hostfile: Annotated[Path | None, typer.Option(help="Hosts to check [default: this machine only].")] = None,
    config: ConfigFile = DEFAULT_CONFIG,
    deepspeed_config: Annotated[
        Path | None, typer.Option("--deepspeed_config", help="DeepSpeed's settings [default: ds_config.json].")
    ] = None,
    master_port: Annotated[int, typer.Option("--master_port", help="Port on the first host.")] = 29500,
    ssh_port: Annotated[int | None, typer.Option("--ssh_port", help="Port of ssh [default: ssh's own].")] = None,
    as_json: Json = False,
) -> None:
    """Check hosts before a training, and suggest fixes.

    Give it the options and overrides of the training. Exit code 1 if a problem would stop it.
    """
    from model.cluster.doctor import TrainingPlan, as_line, examine
    from model.training.ds_config import read_ds_config

    settings = configuration(context, config)
    ds_config = deepspeed_config or shipped("ds_config.json")
    read_ds_config(ds_config, cuda=True)  # an unreadable file is no problem of a host
    plan = TrainingPlan(settings, config, list(context.obj.overrides), ds_config, master_port, ssh_port)
    findings = []
    for finding in examine(hostfile, plan):
        findings.append(finding)
        if not as_json:
            print(as_line(finding), flush=True)
    wrong = sum(finding.state == "wrong" for finding in findings)
    result = {"ready": not wrong, "findings": [asdict(finding) for finding in findings]}
    summary = f"{format_count(wrong, 'problem')} to fix before training" if wrong else "ready to train"
    print_result(result, as_json, [summary])
    raise typer.Exit(1 if wrong else 0)


def relaunch(
    command: Annotated[list[str], typer.Argument(help="The command of the training: deepspeed ... train.py ...")],
    max_restarts: Annotated[int, typer.Option(min=0, help="Most restarts in all.")] = 5,
) -> None:
    """Run a training and restart it until it is finished.

    For unattended runs. Before each restart, processes that are left on any host are ended, and unreachable hosts are
    waited for. The first restart waits 2 s, later ones up to 5 minutes. An error that only you can fix ends it.
    """
    from model.cluster.relaunch import relaunch as run

    sys.exit(run(command, max_restarts, lambda line: emit(f"relaunch: {line}")))
