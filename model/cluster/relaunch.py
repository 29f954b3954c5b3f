"""Restart of a training until it is finished, for unattended runs.

The training's own command runs unchanged: deepspeed, torchrun or python. How it ended is known from the status that
each rank records, as launchers lose exit codes. After each attempt, processes that are left on any host are ended.
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from model.cluster.cleanup import Remains, inspect_launch
from model.cluster.hosts import KEEP_ALIVE, Target, as_launched, check_environment_files, on_all, ssh, target_of
from model.runs.status import LAUNCH, State
from pipeline.errors import UserError

FIRST_WAIT_S, LONGEST_WAIT_S = 2.0, 300.0
"""Wait before the first restart in a row; each further wait is twice as long, up to the longest."""
RAN_WELL_S = 30.0
"""After a run of this length, the waits start from the first one again."""
GRACE_S = 5.0
"""Time for the processes of a run to end after its command has."""
SAVE_GRACE_S = 90.0
"""The same after a request to stop: a checkpoint may still be written."""
CHECK_EVERY_S = 60.0
"""Time between two checks of the hosts of a run. After two in a row with a failed host, the run is ended."""
HOSTS_BACK_S = 1800.0
"""Time for an unreachable host to come back."""
RETRY_S = 10.0

Report = Callable[[str], None]


@dataclass(frozen=True)
class Attempt:
    """How one start of the command ended.

    states: the last ones that the ranks have recorded. left: command lines of processes that outlived the command.
    """

    code: int
    seconds: float
    states: set[str]
    left: list[str]
    finished: bool

    @property
    def outcome(self) -> str:
        """Describe how the attempt ended."""
        if State.INTERRUPTED in self.states:
            return "was interrupted"
        return f"ended with exit code {self.code}" if self.code else "ended before it was finished"


def relaunch(command: Sequence[str], max_restarts: int, report: Report) -> int:
    """Run a training's command, and restart it after a failure, at most `max_restarts` times. Returns its exit code.

    It is not restarted when it is finished, after a user error, and after SIGINT or SIGTERM to this process, which stop
    the training with a checkpoint. Raises UserError if a host does not come back.
    """
    target = target_of(command)
    if target.hosts:
        check_environment_files()
    stop = _StopForwarder()
    restarts = in_row = 0
    while True:
        attempt = _attempt(command, target, stop, report)
        if attempt.left:
            report(f"ended what was left of the run: {'; '.join(attempt.left)}")
        if stop.requested or attempt.finished:
            return attempt.code
        if State.USER_ERROR in attempt.states:
            report("not started again: the error above must be fixed first")
            break
        if restarts == max_restarts:
            report(
                f"the run {attempt.outcome}; {max_restarts} restarts are used up; run the same command to resume from "
                "the last checkpoint"
            )
            break
        restarts += 1
        in_row = 1 if attempt.seconds > RAN_WELL_S else in_row + 1
        wait_s = min(FIRST_WAIT_S * 2 ** (in_row - 1), LONGEST_WAIT_S)
        after = f"after {attempt.seconds:,.0f} s"
        report(f"the run {attempt.outcome} {after}; restart {restarts} of {max_restarts} in {wait_s:,.0f} s")
        if stop.wait(wait_s):
            break
    return attempt.code or 1


class _StopForwarder:
    """Note SIGINT and SIGTERM to this process, and pass them on to the training."""

    def __init__(self) -> None:
        self.requested = False
        self._child: subprocess.Popen[bytes] | None = None
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._stop)

    def wait(self, seconds: float) -> bool:
        """Wait; returns True as soon as a stop was requested."""
        end = time.monotonic() + seconds
        while not self.requested and time.monotonic() < end:
            time.sleep(min(0.2, seconds))
        return self.requested

    def watch(self, child: "subprocess.Popen[bytes]") -> None:
        """Pass requests on to this process, and at once an earlier request."""
        self._child = child
        if self.requested:
            self._stop()

    def _stop(self, *_: Any) -> None:
        self.requested = True
        if self._child is not None and self._child.poll() is None:
            os.killpg(self._child.pid, signal.SIGTERM)


def _attempt(command: Sequence[str], target: Target, stop: _StopForwarder, report: Report) -> Attempt:
    """Run the command once, then end what is left of it on all hosts."""
    started, launch = time.monotonic(), uuid4().hex
    # By these options ssh notices an unreachable host.
    ssh_options = [os.environ.get("PDSH_SSH_ARGS_APPEND", ""), *(f"-o{option}" for option in KEEP_ALIVE)]
    environment = {**os.environ, LAUNCH: launch, "PDSH_SSH_ARGS_APPEND": " ".join(ssh_options).strip()}
    try:
        child = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, start_new_session=True)
    except OSError as error:
        raise UserError(f"{command[0]}: cannot be started: {error.strerror}") from None
    stop.watch(child)
    code = _wait(child, target, launch)
    seconds = time.monotonic() - started
    remains = _clean_up_everywhere(target, launch, stop, report)
    left = [f"{line} ({host})" for host, each in remains for line in each.killed]
    states = {state for _, each in remains for state in each.states}
    # DeepSpeed also returns 0 if its launcher or its pdsh was killed. Other commands may record nothing.
    by_states = states == {State.FINISHED} or (not states and not target.by_deepspeed)
    return Attempt(128 - code if code < 0 else code, seconds, states, left, code == 0 and not left and by_states)


def _wait(child: "subprocess.Popen[bytes]", target: Target, launch: str) -> int:
    """Wait for the command, but not for long after one of several hosts has failed: another one may hang."""
    failures = 0
    while True:
        with suppress(subprocess.TimeoutExpired):
            return child.wait(CHECK_EVERY_S if target.hosts else None)
        answers = on_all(target.hosts, lambda host: _query(host, target, launch))
        failures = failures + 1 if any(remains.failed for remains in answers) else 0
        if failures > 1:
            os.killpg(child.pid, signal.SIGTERM if failures == 2 else signal.SIGKILL)


def _query(host: str, target: Target, launch: str, *grace_s: str) -> Remains:
    """Inspect a launch on a host, or with `grace_s` (seconds) end it."""
    done = ssh(host, as_launched("model.cluster.cleanup", launch, *grace_s), target.ssh_port)
    if done.returncode:
        return Remains(problem=(done.stderr.strip() or "no answer").splitlines()[-1])
    return Remains(**json.loads(done.stdout.splitlines()[-1]))


def _clean_up_everywhere(
    target: Target, launch: str, stop: _StopForwarder, report: Report
) -> list[tuple[str, Remains]]:
    """End the launch here and on every host, waiting for unreachable hosts. Returns (host, remains)."""
    grace_s = SAVE_GRACE_S if stop.requested else GRACE_S
    remains = [("here", inspect_launch(launch, grace_s))]
    hosts, deadline = target.hosts, time.monotonic() + HOSTS_BACK_S
    problems: dict[str, str] = {}
    while True:
        answers = list(zip(hosts, on_all(hosts, lambda host: _query(host, target, launch, str(grace_s))), strict=True))
        remains += [(host, answer) for host, answer in answers if not answer.problem]
        hosts = [host for host, answer in answers if answer.problem]
        for host, answer in answers:
            if answer.problem and problems.get(host) != answer.problem:
                report(f"{host}: unreachable, so the run may still be running there ({answer.problem}); trying again")
                problems[host] = answer.problem
        if not hosts:
            return remains
        if time.monotonic() > deadline or stop.requested:
            raise UserError(f"{', '.join(hosts)}: unreachable ({problems[hosts[0]]}); not started again")
        stop.wait(RETRY_S)
