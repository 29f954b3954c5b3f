"""How a command ends that does not end well: what it says, and its exit code."""

import os
import signal
import sys
from typing import NoReturn

from pipeline.runtime.progress import tell

GO_ON = ("download", "shards", "predict")
"""Commands that take up what a start before has finished."""
INTERRUPTED = 128 + signal.SIGINT
"""Exit code after Ctrl-C, as shells have it."""
NOT_READ = 128 + signal.SIGPIPE
"""Exit code where who reads our output has had enough (| head), as shells have it."""


def failed(why: str) -> NoReturn:
    """End with what went wrong; whether our output is read any more changes nothing about that."""
    tell(f"error: {why}")
    _flush()
    sys.exit(1)


def interrupted(given: list[str]) -> NoReturn:
    """End after Ctrl-C. given: the command's words, that tell what the same ones would do."""
    goes_on = given[:1] and given[0] in GO_ON and "-" not in given  # standard input and output are gone
    tell(f"interrupted; the same command {'goes on from there' if goes_on else 'starts anew'}")
    _flush()
    sys.exit(INTERRUPTED)


def not_read() -> NoReturn:
    """End without a word."""
    _drop_output()
    sys.exit(NOT_READ)


def _flush() -> None:
    """Write what is left of our output, or drop it where that cannot be done."""
    try:
        sys.stdout.flush()
    except OSError:
        _drop_output()


def _drop_output() -> None:
    """What is left of our output goes nowhere: Python would complain of it as it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
