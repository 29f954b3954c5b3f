"""The command serve."""

import signal
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from model.cli.options import MODEL_FOLDER
from model.serving.limits import HOST, PORT
from pipeline.runtime.interrupts import signal_handlers
from pipeline.runtime.progress import emit


def serve(
    context: typer.Context,
    model: Annotated[Path, typer.Argument(help=MODEL_FOLDER)],
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 for a free one.")] = PORT,
    host: Annotated[
        str,
        typer.Option(help="Address to listen on. 0.0.0.0 lets other machines use the server, without authentication."),
    ] = HOST,
) -> None:
    """Serve predictions on a local web page.

    Paste sequences or upload a file; get predictions, a download, and the effects of all substitutions in a sequence.
    Scripts: POST /predict with JSON. Overrides can request repairs of sequences, as in predict. Ctrl-C ends the server.

    Example: promoter-bert serve runs/demo --port 8080
    """
    from model.artifacts.model_directory import read_model_facts

    read_model_facts(model)  # report a wrong folder before torch is loaded, which takes seconds

    from model.serving.server import serve as serve_run

    def started(address: str) -> None:
        print(f"{address} serves {model}; end: Ctrl-C", flush=True)

    ends_as_ctrl_c = signal_handlers([signal.SIGTERM], signal.default_int_handler)  # so that uploads are deleted
    with suppress(KeyboardInterrupt), ends_as_ctrl_c:  # before the server handles Ctrl-C, or again while it closes
        serve_run(model, host, port, context.obj.overrides, started, lambda text: emit(f"warning: {text}"))
    emit("stopped")
