"""Limits of the server, and its answer to a request that breaks one."""

from dataclasses import dataclass

HOST, PORT = "127.0.0.1", 8000
"""Address of the server, unless the command names another one."""


@dataclass(frozen=True)
class Limits:
    """Most that one request, and all requests together, may use.

    body_bytes: of a request, and of an upload after decompression. sequences: predictions per request; a saturation
    mutagenesis counts each substitution. requests: that are predicted or wait for their turn; the next one is refused.
    wait_s: longest wait. predict_s: longest prediction.
    """

    body_bytes: int = 10_000_000
    sequences: int = 10_000
    requests: int = 4
    wait_s: float = 60.0
    predict_s: float = 120.0


class RefusedError(Exception):
    """Request that is refused. status: of HTTP; the message says what is expected."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def too_many_sequences(limits: Limits) -> RefusedError:
    """Make the error for a request with too many sequences."""
    return RefusedError(413, f"expected at most {limits.sequences:,} sequences; fix: promoter-bert predict on a file")


def too_large(limits: Limits) -> RefusedError:
    """Make the error for a request with too many bytes."""
    return RefusedError(
        413, f"expected at most {limits.body_bytes / 1e6:,g} MB, decompressed; fix: promoter-bert predict on a file"
    )
