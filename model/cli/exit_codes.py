"""The exit code of a command that fails or is interrupted, and what it prints then.

0 success, 1 the data or the run failed, 2 wrong usage; as in shells, 130 after Ctrl-C and 141 if the reader of the
output has gone (| head).
"""

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

from pipeline.errors import UserError
from pipeline.runtime.progress import emit

RESUMABLE = ("download", "shards", "predict")
"""Commands that resume what an interrupted one has finished."""
INTERRUPTED = 128 + signal.SIGINT
BROKEN_PIPE = 128 + signal.SIGPIPE


@contextmanager
def exit_codes(words: Sequence[str]) -> Iterator[None]:
    """Turn the errors of a command into a message and an exit code. words: of the command line."""
    try:
        try:
            yield
        except SystemExit:  # how typer ends, on success too
            sys.stdout.flush()  # here, where a broken pipe is still handled
            raise
    except UserError as error:
        _exit(1, f"error: {error}")
    except KeyboardInterrupt:
        _interrupt(words)
    except SystemExit as end:
        if end.code == INTERRUPTED:  # typer handled Ctrl-C, and printed nothing
            _interrupt(words)
        if isinstance(end.__context__, BrokenPipeError):  # typer handled that, too
            _break_pipe()
        raise
    except RuntimeError as error:
        if "Query interrupted" not in str(error):  # DuckDB's only sign of Ctrl-C
            raise
        _interrupt(words)
    except BrokenPipeError:
        _break_pipe()
    except OSError as error:
        _exit(1, f"error: {error.strerror or error}{f': {error.filename}' if error.filename else ''}")


def _interrupt(words: Sequence[str]) -> NoReturn:
    """Exit as after Ctrl-C, and print what the same command would do."""
    command = next((word for word in words if not word.startswith("-")), "")
    resumes = command in RESUMABLE and "-" not in words  # standard input and output are gone
    _exit(
        INTERRUPTED, f"interrupted; run the same command to {'resume' if resumes else 'start again from the beginning'}"
    )


def _exit(code: int, message: str) -> NoReturn:
    """Exit after a message, also if nobody reads the output any more."""
    emit(message)
    try:
        sys.stdout.flush()
    except OSError:
        _drop_output()
    sys.exit(code)


def _break_pipe() -> NoReturn:
    _drop_output()
    sys.exit(BROKEN_PIPE)


def _drop_output() -> None:
    """Send the output that is left to nowhere; Python would report it as an error when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
