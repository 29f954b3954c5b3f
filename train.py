"""Pretrain and fine-tune: shards -> BERT -> scored predictions. Goes on by itself where an earlier start ended.

deepspeed --hostfile hostfile train.py                          all machines of the hostfile
deepspeed --num_accelerators 2 train.py --config configs/demo.yaml       two processes here
python train.py --config configs/demo.yaml finetune.learning_rate=3e-4   one process
"""

import argparse
import os
import signal
import sys
from pathlib import Path

from model.watchdog.client import Guarded, guarded
from pipeline.errors import UserError

# What takes longer to import is imported when this process has its guard.


def arguments() -> argparse.Namespace:
    """The command line; DeepSpeed's launcher adds --local_rank."""
    from pipeline.config.schema import DEFAULT_CONFIG

    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("overrides", nargs="*", metavar="key=value", help="such as pretrain.learning_rate=3e-4")
    cli.add_argument("--config", type=Path, default=DEFAULT_CONFIG, help="default: config.yaml")
    cli.add_argument("--deepspeed_config", type=Path, default=None, help="default: ds_config.json")
    cli.add_argument("--stage", choices=("pretrain", "finetune", "both"), default="both", help="default: both")
    cli.add_argument("--local_rank", type=int, default=None, help="set by the launcher")
    args = cli.parse_intermixed_args()
    wrong = [text for text in args.overrides if "=" not in text]
    if wrong:
        cli.error(f"expected key=value, got {wrong[0]}")
    return args


def main(guard: Guarded | None) -> None:
    """Parse, build, run, say what came out."""
    from model.config import load_config

    args = arguments()
    config = load_config(args.config, args.overrides)

    from model.training.train import train

    train(config, args.stage, args.deepspeed_config, guard, lambda text: print(text, flush=True))


def interrupt(*_: object) -> None:
    """A polite end (SIGTERM, as the launcher or a scheduler sends it) is taken like Ctrl-C."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, interrupt)
    try:
        with guarded(os.environ) as guard:
            main(guard)
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted; the same command goes on from the last checkpoint")
