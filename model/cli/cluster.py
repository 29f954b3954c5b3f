"""The commands doctor and relaunch, for trainings on several hosts and unattended trainings."""

import os
import sys
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
    hostfile: Annotated[
        Path | None, typer.Option(help="DeepSpeed's hostfile with the hosts to check. [default: this machine only]")
    ] = None,
    slurm: Annotated[bool, typer.Option("--slurm", help="Check the Slurm job that runs this command.")] = False,
    config: ConfigFile = DEFAULT_CONFIG,
    deepspeed_config: Annotated[
        Path | None, typer.Option("--deepspeed_config", help="File of DeepSpeed's settings. [default: ds_config.json]")
    ] = None,
    master_port: Annotated[
        int, typer.Option("--master_port", help="Port on the first host where all processes of the training connect.")
    ] = 29500,
    ssh_port: Annotated[
        int | None, typer.Option("--ssh_port", help="Port for ssh. [default: from ssh's configuration]")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check the hosts of a training and suggest fixes.

    Use the same options and overrides as for the training. The exit code is 1 if a problem would stop the training.

    Example: promoter-bert doctor --hostfile hostfile
    """
    from model.cluster.doctor import TrainingPlan, check_hosts, format_finding
    from model.cluster.slurm import check_job
    from model.training.ds_config import read_ds_config

    settings = configuration(context, config)
    ds_config = deepspeed_config or shipped("ds_config.json")
    read_ds_config(ds_config, cuda=True)  # an invalid file is an error of the command, not of a host
    plan = TrainingPlan(settings, config, list(context.obj.overrides), ds_config, master_port, ssh_port)
    findings = []
    for finding in check_job(plan, os.environ) if slurm else check_hosts(hostfile, plan):
        findings.append(finding)
        if not as_json:
            print(format_finding(finding), flush=True)
    problems = sum(finding.state == "wrong" for finding in findings)
    result = {"ready": not problems, "findings": [finding.as_dict() for finding in findings]}
    summary = f"{format_count(problems, 'problem')} to fix before training" if problems else "ready to train"
    print_result(result, as_json, [summary])
    raise typer.Exit(1 if problems else 0)


def relaunch(
    command: Annotated[list[str], typer.Argument(help="Command of the training: deepspeed ... train.py ...")],
    max_restarts: Annotated[int, typer.Option(min=0, help="Maximum number of restarts.")] = 5,
) -> None:
    """Run a training and restart it until it is finished.

    For unattended trainings. Before each restart, relaunch kills leftover processes on all hosts, and waits for
    unreachable hosts. The first restart follows after 2 s, later ones after up to 5 minutes. It does not restart after
    an error that the user must fix, such as exit code 2 (wrong usage) of any command.

    Example: promoter-bert relaunch --max-restarts 20 deepspeed train.py
    """
    from model.cluster.relaunch import relaunch as run

    sys.exit(run(command, max_restarts, lambda line: emit(f"relaunch: {line}")))
