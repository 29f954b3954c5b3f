"""Restarts of an unattended training until it is finished.

The command of the training runs unchanged: deepspeed, torchrun or python. Each rank records its final state, as
launchers lose exit codes. After each attempt, leftover processes on all hosts are killed.
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import FrameType
from uuid import uuid4

from model.cluster.cleanup import Leftovers, inspect_launch
from model.cluster.hosts import (
    KEEP_ALIVE,
    Target,
    check_environment_files,
    make_remote_command,
    parse_target,
    run_on_all,
    ssh,
)
from model.runs.status import LAUNCH, ExitCode, State
from pipeline.errors import UserError
from pipeline.runtime.interrupts import signal_handlers

FIRST_WAIT_S, LONGEST_WAIT_S = 2.0, 300.0
"""Wait before the first restart, and longest wait; in between, each wait is twice as long as the one before."""
RAN_WELL_S = 30.0
"""Length of an attempt after which the next wait is the first one again."""
GRACE_S = 5.0
"""Time for the processes of a run to end after their command has ended."""
SAVE_GRACE_S = 90.0
"""The same after a stop request, as a checkpoint may still be written."""
CHECK_EVERY_S = 60.0
"""Time between two checks of the hosts of a run. It is ended if a host fails two checks in a row."""
HOSTS_BACK_S = 1800.0
"""Time for an unreachable host to become reachable again."""
RETRY_S = 10.0
"""Time between two attempts to reach a host."""

Report = Callable[[str], None]


@dataclass(frozen=True)
class Attempt:
    """Result of one start of the command.

    code: exit code; seconds: run time; states: last recorded states of the ranks; leftovers: command lines of killed
    processes that outlived the command; finished: whether the training is finished.
    """

    code: int
    seconds: float
    states: set[str]
    leftovers: list[str]
    finished: bool

    @property
    def outcome(self) -> str:
        """Describe how the attempt ended."""
        if State.INTERRUPTED in self.states:
            return "was interrupted"
        return f"ended with exit code {self.code}" if self.code else "ended before it was finished"


def relaunch(command: Sequence[str], max_restarts: int, report: Report) -> int:
    """Run the command of a training, and restart it after failures. Returns the exit code of the last start.

    There is no restart after the training is finished, after a user error or exit code 2, a usage error, and after
    SIGINT or SIGTERM to this process, which stop the training with a checkpoint. report: receives a line per event.
    Raises UserError if the command cannot be started, or if a host stays unreachable.
    """
    target = parse_target(command)
    if target.hosts:
        check_environment_files()
    stop = _StopForwarder()
    with signal_handlers((signal.SIGINT, signal.SIGTERM), stop.handle_signal):
        return _run_until_finished(command, target, max_restarts, stop, report)


class _StopForwarder:
    """Receiver of stop signals to this process, which forwards them to the training as SIGTERM."""

    def __init__(self) -> None:
        self.requested = False
        self._child: subprocess.Popen[bytes] | None = None

    def handle_signal(self, _number: int, _frame: FrameType | None) -> None:
        self.requested = True
        self._forward()

    def wait(self, seconds: float) -> bool:
        """Wait, at most until a stop is requested. Returns whether it was."""
        end = time.monotonic() + seconds
        while not self.requested and time.monotonic() < end:
            time.sleep(min(0.2, seconds))
        return self.requested

    def watch(self, child: "subprocess.Popen[bytes]") -> None:
        """Forward stop requests to a process from now on, an earlier request at once."""
        self._child = child
        if self.requested:
            self._forward()

    def _forward(self) -> None:
        if self._child is not None and self._child.poll() is None:
            os.killpg(self._child.pid, signal.SIGTERM)


def _run_until_finished(
    command: Sequence[str], target: Target, max_restarts: int, stop: _StopForwarder, report: Report
) -> int:
    """Start the command, and restart it after failures. Returns the exit code of the last start."""
    restarts = in_row = 0
    while True:
        attempt = _attempt(command, target, stop, report)
        if attempt.leftovers:
            report(f"killed leftover processes: {'; '.join(attempt.leftovers)}")
        if stop.requested or attempt.finished:
            return attempt.code
        if State.USER_ERROR in attempt.states or attempt.code == ExitCode.USAGE:
            report("not restarted: the error above must be fixed first")
            break
        if restarts == max_restarts:
            report(
                f"the run {attempt.outcome}; {max_restarts} restarts are used up; fix: run the same command to resume "
                "from the last checkpoint"
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


def _attempt(command: Sequence[str], target: Target, stop: _StopForwarder, report: Report) -> Attempt:
    """Run the command once, then kill its leftover processes on all hosts."""
    began, launch = time.monotonic(), uuid4().hex
    # With these options pdsh's ssh notices an unreachable host.
    ssh_options = [os.environ.get("PDSH_SSH_ARGS_APPEND", ""), *(f"-o{option}" for option in KEEP_ALIVE)]
    environment = {**os.environ, LAUNCH: launch, "PDSH_SSH_ARGS_APPEND": " ".join(ssh_options).strip()}
    try:
        child = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, start_new_session=True)
    except OSError as error:
        raise UserError(
            f"{command[0]}: cannot be started: {error.strerror}; expected deepspeed, torchrun or python"
        ) from None
    stop.watch(child)
    code = _wait(child, target, launch)
    seconds = time.monotonic() - began
    leftovers = _clean_up_everywhere(target, launch, stop, report)
    killed = [f"{line} ({host})" for host, each in leftovers for line in each.killed]
    states = {state for _, each in leftovers for state in each.states}
    # DeepSpeed also returns 0 if its launcher or its pdsh was killed. Other commands may not record a state.
    by_states = states == {State.FINISHED} or (not states and not target.by_deepspeed)
    return Attempt(128 - code if code < 0 else code, seconds, states, killed, code == 0 and not killed and by_states)


def _wait(child: "subprocess.Popen[bytes]", target: Target, launch: str) -> int:
    """Wait for the command. End it soon after one of several hosts has failed, as the others may hang."""
    failures = 0
    while True:
        with suppress(subprocess.TimeoutExpired):
            return child.wait(CHECK_EVERY_S if target.hosts else None)
        answers = run_on_all(target.hosts, lambda host: _query(host, target, launch))
        failures = failures + 1 if any(leftovers.failed for leftovers in answers) else 0
        if failures > 1:
            os.killpg(child.pid, signal.SIGTERM if failures == 2 else signal.SIGKILL)


def _query(host: str, target: Target, launch: str, *grace_s: str) -> Leftovers:
    """Inspect a launch on a host; with `grace_s`, seconds as text, kill its processes."""
    done = ssh(host, make_remote_command("model.cluster.cleanup", launch, *grace_s), target.ssh_port)
    if done.returncode:
        return Leftovers(problem=(done.stderr.strip() or "no answer").splitlines()[-1])
    return Leftovers(**json.loads(done.stdout.splitlines()[-1]))


def _clean_up_everywhere(
    target: Target, launch: str, stop: _StopForwarder, report: Report
) -> list[tuple[str, Leftovers]]:
    """Kill the processes of a launch here and on every host, waiting for unreachable hosts. Returns (host, leftovers).

    Raises UserError if a host stays unreachable.
    """
    grace_s = SAVE_GRACE_S if stop.requested else GRACE_S
    leftovers = [("here", inspect_launch(launch, grace_s))]
    hosts, deadline = target.hosts, time.monotonic() + HOSTS_BACK_S
    problems: dict[str, str] = {}
    while True:
        answers = list(
            zip(hosts, run_on_all(hosts, lambda host: _query(host, target, launch, str(grace_s))), strict=True)
        )
        leftovers += [(host, answer) for host, answer in answers if not answer.problem]
        hosts = [host for host, answer in answers if answer.problem]
        for host, answer in answers:
            if answer.problem and problems.get(host) != answer.problem:
                report(f"{host}: unreachable ({answer.problem}); the run may still be running there; trying again")
                problems[host] = answer.problem
        if not hosts:
            return leftovers
        if time.monotonic() > deadline or stop.requested:
            raise UserError(
                f"{', '.join(hosts)}: unreachable ({problems[hosts[0]]}), so the run is not restarted; fix: check the "
                "hosts with promoter-bert doctor, then run the same command to resume"
            )
        stop.wait(RETRY_S)
