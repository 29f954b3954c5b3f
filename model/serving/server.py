"""Listen on a port and serve the application until Ctrl-C."""

import logging
import socket
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from pathlib import Path

import waitress

from model.serving.limits import HOST, PORT
from pipeline.errors import UserError

IDLE_S = 60
"""Seconds until a connection without traffic is closed."""
CONNECTIONS = 32
THREADS = 8
"""More than requests in the queue, so that the others are refused at once."""


def serve(
    run: Path,
    host: str,
    port: int,
    overrides: Sequence[str],
    on_start: Callable[[str], None],
    warn: Callable[[str], None],
) -> None:
    """Serve predictions of a run until Ctrl-C, then return.

    port: 0 for a free one. on_start: called with the address when requests are answered. warn: called with a warning if
    other machines can reach the server. Raises UserError for an invalid model and a port that cannot be opened.
    """
    with _listen(host, port) as listener:
        if not _is_loopback(host):
            warn(f"--host {host}: other machines can use this server, and there is no authentication")

        from model.serving.service import PredictionService  # imports torch, which takes seconds
        from model.serving.web import PredictionApp

        service = PredictionService(run, overrides, options=_options(host, port))
        limit = 2 * service.limits.body_bytes  # the application explains its own limit up to here
        logging.getLogger("waitress").setLevel(logging.ERROR)  # not each request that waits
        server = waitress.create_server(
            PredictionApp(service, _host_names(host)), sockets=[listener], threads=THREADS, ident="promoter-bert",
            connection_limit=CONNECTIONS, channel_timeout=IDLE_S, max_request_body_size=limit,
        )  # fmt: skip
        name = f"[{host}]" if ":" in host else host
        on_start(f"http://{name}:{listener.getsockname()[1]}/")
        server.run()  # returns after Ctrl-C
        server.close()


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, OverflowError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"{host}:{port}: cannot be opened: {reason}; fix: --port 0, for a free one") from None


def _options(host: str, port: int) -> list[str]:
    """List the options of the command that differ from its defaults."""
    options = [("--port", str(port), str(PORT)), ("--host", host, HOST)]
    return [word for name, value, default in options if value != default for word in (name, value)]


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _host_names(host: str) -> list[str]:
    """List the names by which browsers may call the server."""
    return ["localhost", host] + ([] if _is_loopback(host) else [socket.gethostname(), socket.getfqdn()])
