"""Exit codes of commands, and the messages of commands that fail or are interrupted.

0 success, 1 error in the data or the run, 2 wrong usage. As in shells, 130 after Ctrl-C, and 141 after a broken pipe
(the reader of the output has exited, as in | head). Ctrl-C is how a running server ends: 0.
"""

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

from pipeline.errors import UserError
from pipeline.runtime.progress import emit

RESUMABLE = ("download", "shards", "predict", "variants", "explain")
"""Commands that resume after an interruption."""
INTERRUPTED = 128 + signal.SIGINT
BROKEN_PIPE = 128 + signal.SIGPIPE


@contextmanager
def exit_codes(arguments: Sequence[str]) -> Iterator[None]:
    """Turn the errors of a command into a message and an exit code. arguments: of the command line."""
    try:
        try:
            yield
        except SystemExit:  # how typer ends, on success too
            sys.stdout.flush()  # here, where a broken pipe is still handled
            raise
    except UserError as error:
        _exit(1, f"error: {error}")
    except KeyboardInterrupt:
        _interrupt(arguments)
    except SystemExit as end:
        if end.code == INTERRUPTED:  # typer handled Ctrl-C without a message
            _interrupt(arguments)
        if isinstance(end.__context__, BrokenPipeError):  # typer handled the broken pipe
            _break_pipe()
        raise
    except RuntimeError as error:
        if "Query interrupted" not in str(error):  # DuckDB reports Ctrl-C in this text only
            raise
        _interrupt(arguments)
    except BrokenPipeError:
        _break_pipe()
    except OSError as error:
        _exit(1, f"error: {error.strerror or error}{f': {error.filename}' if error.filename else ''}")


def _interrupt(arguments: Sequence[str]) -> NoReturn:
    """Exit with the code of Ctrl-C, and print whether the same command resumes."""
    command = next((argument for argument in arguments if not argument.startswith("-")), "")
    resumes = command in RESUMABLE and "-" not in arguments  # standard input can be read only once
    if command == "evaluate":  # without an output there is no file beside which it keeps its predictions
        resumes = any(argument.startswith(("-o", "--out")) for argument in arguments)
    _exit(
        INTERRUPTED, f"interrupted; run the same command to {'resume' if resumes else 'start again from the beginning'}"
    )


def _exit(code: int, message: str) -> NoReturn:
    """Print a message and exit, also if the reader of the output has exited."""
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
    """Redirect the remaining output to the null device; otherwise Python reports an error at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
