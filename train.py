"""Pretrain and fine-tune a BERT on the shards, then score it. Run the same command to resume."""

import argparse
import os
import signal
import sys
import traceback
from functools import partial
from pathlib import Path

from model.runs.status import RunStatus, State, describe_interruption, locate_launch_record
from model.watchdog.client import Watchdog, start_watchdog
from pipeline.errors import UserError

# Slow imports follow inside functions, after the watchdog of this process has started.


EXAMPLES = """\
Examples:
  On all hosts of a hostfile:       deepspeed --hostfile hostfile train.py
  On localhost of it, without ssh:  deepspeed --hostfile hostfile --no_ssh_check --master_addr 127.0.0.1 train.py
  With two processes on this host:  deepspeed --num_accelerators 2 train.py --config configs/demo.yaml
  With one process:                 python train.py --config configs/demo.yaml finetune.learning_rate=3e-4
"""


def parse_arguments() -> argparse.Namespace:
    """Parse the command line, to which DeepSpeed's launcher adds --local_rank."""
    from pipeline.config.schema import DEFAULT_CONFIG

    cli = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cli.add_argument(
        "overrides", nargs="*", metavar="section.key=value",
        help="Overrides of the configuration, such as pretrain.learning_rate=3e-4.",
    )  # fmt: skip
    cli.add_argument(
        "--config", type=Path, default=DEFAULT_CONFIG, metavar="FILE", help="Configuration file. [default: config.yaml]"
    )
    cli.add_argument(
        "--deepspeed_config", type=Path, metavar="FILE", help="File of DeepSpeed's settings. [default: ds_config.json]"
    )
    cli.add_argument(
        "--stage", choices=("pretrain", "finetune", "both"), default="both", help="Stages to train. [default: both]"
    )
    cli.add_argument(
        "--local_rank", type=int, metavar="N", help="Number of this process on its host; set by launchers."
    )
    cli.add_argument("--version", action="store_true", help="Show the version and exit.")
    args, unknown = cli.parse_known_intermixed_args()
    if args.version:
        from importlib.metadata import version

        cli.exit(message=f"promoter-bert {version('promoter-bert')}\n")
    if unknown:
        from model.config import suggest_setting

        cli.error(f"{unknown[0]}: no such option; {suggest_setting(unknown[0], args.overrides)}")
    invalid = [text for text in args.overrides if "=" not in text]
    if invalid:
        cli.error(f"expected section.key=value, got {invalid[0]}")
    return args


def train(watchdog: Watchdog | None) -> State:
    """Parse the command line, train, print the summary. Returns the state in which the run ended."""
    from model.config import load_config

    args = parse_arguments()
    config = load_config(args.config, args.overrides)

    try:
        from model.training import train as training

        emit = partial(print, flush=True)
        summary = training.train(config, args.stage, args.deepspeed_config, watchdog, emit)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(describe_interruption(config.run.directory)) from None
    return State.INTERRUPTED if "stopped" in summary else State.FINISHED


def main() -> int:
    """Run one process of a training and record its end. Returns the exit code."""
    for number in (signal.SIGTERM, signal.SIGUSR1):  # launchers and schedulers send them: handle as Ctrl-C
        signal.signal(number, signal.default_int_handler)
    status = RunStatus(locate_launch_record(os.environ))
    try:
        with status, start_watchdog(os.environ) as watchdog:
            status.state = train(watchdog)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
    except KeyboardInterrupt as interruption:
        print(str(interruption) or "interrupted before the training; run the same command again", file=sys.stderr)
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except Exception:
        traceback.print_exc()
    return status.exit_code


if __name__ == "__main__":
    sys.exit(main())
