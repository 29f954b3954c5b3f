"""Start a training again until it is finished, for runs that nobody watches.

The training's own command is run as it stands: deepspeed, torchrun or python. When it has ended, what is left of it
on any host is ended, too, so that no process of before writes into the run of after.
"""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from model.cluster.cleanup import MARK, sweep
from model.cluster.hosts import KEEP_ALIVE, as_launched, check_environment_files, on_all, read_hostfile, ssh
from pipeline.errors import UserError

USERS_ERROR = re.compile(r"^(?:\S+: )?error: ")
"""What train.py says of an error that only the user can mend, behind pdsh's name of the host."""
INTERRUPTED = re.compile(r"^(?:\S+: )?(?:interrupted|stopped)\b")
"""What train.py says when it was asked to end; it need not be finished."""
THROUGH = re.compile(r"^(?:\S+: )?(?:directory|pretrained) ")
"""What train.py says when it is finished."""
HOST_ENDED = re.compile(r"^pdsh@\S+: (\S+: ssh exited with exit code \d+)")
"""What pdsh says of a host where the run has failed."""
DEEPSPEED_HOSTFILE = Path("/job/hostfile")
"""Where DeepSpeed looks when it is told no other."""
FIRST_WAIT, LONGEST_WAIT = 2.0, 300.0
"""Seconds before the first restart in a row; each further one waits twice as long, up to the longest."""
RAN_WELL = 30.0
"""Seconds after which a run that fails had started well: the waits begin anew."""
TIDY = 5.0
"""Seconds that the processes of a run have to end after its command has."""
PARTING = 90.0
"""The same where the run was asked to end: a checkpoint may still be written."""
OTHERS_END = 60.0
"""Seconds that the other hosts have to end when one has failed."""
HOSTS_BACK = 1800.0
"""Seconds to wait for a host that cannot be reached."""
ASK_EVERY = 10.0


@dataclass
class Attempt:
    """How one start of the command ended.

    through: whether code 0 means that it is finished. left: processes that outlived it, by host.
    """

    code: int
    seconds: float
    users_error: bool
    interrupted: bool
    through: bool
    left: list[str] = field(default_factory=list)
    host_failed: float | None = None
    """When the first host of several failed, by the monotonic clock."""

    @property
    def finished(self) -> bool:
        """Whether there is nothing more to do. DeepSpeed answers 0, too, when its launcher or its pdsh was killed."""
        return self.code == 0 and self.through and not self.interrupted and not self.left


@dataclass(frozen=True)
class Target:
    """Where a command's processes run beside this machine."""

    hosts: list[str]
    ssh_port: int | None


def relaunch(command: Sequence[str], max_restarts: int, say: Callable[[str], None]) -> int:
    """Run a training's command, again where it failed, `max_restarts` times at most. Returns its last exit code.

    Not started again: what is finished, a user's error (train.py's "error: ..."), and after SIGINT or SIGTERM to this
    process, which end the training politely. Raises UserError where a host stays away.
    """
    target = target_of(command)
    if target.hosts:
        check_environment_files()
    mark = uuid4().hex
    asked = _Asked()
    row = 0
    for restart in range(max_restarts + 1):
        attempt = _run(command, mark, asked)
        attempt.left = _sweep_all(target, mark, PARTING if asked.to_end else TIDY, asked, say)
        if attempt.left:
            say(f"ended what was left of the run: {'; '.join(attempt.left)}")
        if asked.to_end or attempt.finished:
            return attempt.code
        if attempt.users_error and attempt.code:
            say("not started again: the error above must be mended first")
            return attempt.code
        how = "ended before it was finished" if attempt.code == 0 else f"ended with exit code {attempt.code}"
        how = "was interrupted" if attempt.interrupted else how
        if restart == max_restarts:
            say(
                f"the run {how}; {max_restarts} restarts are used up. The same command goes on from the last checkpoint"
            )
            return attempt.code or 1
        row = 1 if attempt.seconds > RAN_WELL else row + 1
        wait = min(FIRST_WAIT * 2 ** (row - 1), LONGEST_WAIT)
        say(f"the run {how} after {attempt.seconds:,.0f} s; restart {restart + 1} of {max_restarts} in {wait:,.0f} s")
        if asked.within(wait):
            return attempt.code or 1
    raise AssertionError("unreachable")


def target_of(command: Sequence[str]) -> Target:
    """The hosts that a deepspeed command runs on; none where it stays on this machine."""
    if not _is_deepspeed(command):
        return Target([], None)
    options = _launcher_options(command)
    named = options.get("--hostfile") or options.get("-H")
    if "--no_ssh" in command or (named is None and not DEEPSPEED_HOSTFILE.exists()):
        return Target([], None)
    path = Path(named) if named else DEEPSPEED_HOSTFILE
    names = [host.name for host in read_hostfile(path)]
    chosen, dropped = (options.get(name, "") for name in ("--include", "--exclude"))
    chosen = options.get("-i", chosen)
    dropped = options.get("-e", dropped)
    if chosen:
        names = [name for name in names if name in {part.split(":")[0] for part in chosen.split("@")}]
    names = [name for name in names if name not in dropped.split("@")]
    port = options.get("--ssh_port")
    return Target(names if len(names) > 1 else [], int(port) if port else None)


def _is_deepspeed(command: Sequence[str]) -> bool:
    return Path(command[0]).name in ("deepspeed", "ds")


def _hides_its_end(command: Sequence[str]) -> bool:
    """Whether exit code 0 is no proof, and the training's last words are to be seen."""
    return _is_deepspeed(command) and "--enable_each_rank_log" not in _launcher_options(command)


def _launcher_options(command: Sequence[str]) -> dict[str, str]:
    """The options of DeepSpeed's launcher, which stand before the script."""
    options, words = {}, list(command[1:])
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word.endswith(".py"):
            break
        name, equals, value = word.partition("=")
        if name.startswith("-"):
            options[name] = value if equals else following
    return options


class _Asked:
    """Whether this process was asked to end; passes that on to the training."""

    def __init__(self) -> None:
        self.to_end = False
        self._child: subprocess.Popen[bytes] | None = None
        for polite in (signal.SIGINT, signal.SIGTERM):
            signal.signal(polite, self._end)

    def within(self, seconds: float) -> bool:
        """Wait; True as soon as it was asked."""
        end = time.monotonic() + seconds
        while not self.to_end and time.monotonic() < end:
            time.sleep(min(0.2, seconds))
        return self.to_end

    def watch(self, child: "subprocess.Popen[bytes]") -> None:
        """End this one when asked, or now where that was before."""
        self._child = child
        if self.to_end:
            self._end()

    def _end(self, *_: Any) -> None:
        self.to_end = True
        if self._child is not None and self._child.poll() is None:
            os.killpg(self._child.pid, signal.SIGTERM)


def _run(command: Sequence[str], mark: str, asked: _Asked) -> Attempt:
    """Run the command once; its output is passed on line by line, and looked at."""
    began = time.monotonic()
    attempt = Attempt(0, 0.0, False, False, not _hides_its_end(command))
    try:
        child = subprocess.Popen(
            list(command), env=_environment(mark), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        raise UserError(f"{command[0]}: cannot be started: {error.strerror}") from None
    asked.watch(child)
    reader = threading.Thread(target=_pass_on, args=(child, attempt), daemon=True)
    reader.start()
    attempt.code = _wait(child, attempt)
    reader.join(TIDY)  # what outlives the command may hold its output open
    attempt.code = 128 - attempt.code if attempt.code < 0 else attempt.code
    attempt.seconds = time.monotonic() - began
    return attempt


def _wait(child: "subprocess.Popen[bytes]", attempt: Attempt) -> int:
    """The command's exit code. Where a host fails, the command is not waited for much longer."""
    while True:
        with suppress(subprocess.TimeoutExpired):
            return child.wait(1)
        since = 0.0 if attempt.host_failed is None else time.monotonic() - attempt.host_failed
        if since > OTHERS_END:
            os.killpg(child.pid, signal.SIGTERM if since < 2 * OTHERS_END else signal.SIGKILL)


def _environment(mark: str) -> dict[str, str]:
    """With the mark; and ssh notices when a host is away, which by default it does not."""
    ssh_arguments = [os.environ.get("PDSH_SSH_ARGS_APPEND", ""), *(f"-o{option}" for option in KEEP_ALIVE)]
    return {**os.environ, MARK: mark, "PDSH_SSH_ARGS_APPEND": " ".join(ssh_arguments).strip()}


def _pass_on(child: "subprocess.Popen[bytes]", attempt: Attempt) -> None:
    assert child.stdout is not None
    for raw in child.stdout:
        line = raw.decode(errors="replace")
        sys.stdout.write(line)
        sys.stdout.flush()
        attempt.users_error |= bool(USERS_ERROR.match(line))
        attempt.interrupted |= bool(INTERRUPTED.match(line))
        attempt.through |= bool(THROUGH.match(line))
        if attempt.host_failed is None and HOST_ENDED.match(line):
            attempt.host_failed = time.monotonic()


def _sweep_all(target: Target, mark: str, grace: float, asked: _Asked, say: Callable[[str], None]) -> list[str]:
    """End what is left here and on every host, waiting for hosts that are away. Command lines of what was ended."""
    found = [f"{line} (here)" for line in sweep(mark, grace)]
    waiting, deadline = list(target.hosts), time.monotonic() + HOSTS_BACK
    said: dict[str, str] = {}

    def ask(host: str) -> str:
        done = ssh(host, as_launched("model.cluster.cleanup", mark, str(grace)), target.ssh_port)
        return done.stdout if done.returncode == 0 else f"? {(done.stderr.strip() or 'no answer').splitlines()[-1]}"

    while waiting:
        answers = dict(zip(waiting, on_all(waiting, ask), strict=True))
        waiting = [host for host, answer in answers.items() if answer.startswith("?")]
        for host, answer in answers.items():
            if host not in waiting:
                found += [f"{line} ({host})" for line in json.loads(answer.splitlines()[-1])]
            elif said.get(host) != answer:
                said[host] = answer
                say(f"{host} cannot be asked whether the run has ended there ({answer[2:]}); asking again")
        if waiting and (time.monotonic() > deadline or asked.to_end):
            raise UserError(f"{', '.join(waiting)}: not reached any more ({said[waiting[0]][2:]}); not started again")
        if waiting:
            asked.within(ASK_EVERY)
    return found
