"""Run the training of a Slurm job: restart it after a failure, requeue the job after a request to stop.

examples/slurm/train.sbatch runs this module as the job's batch process: python -m model.cluster.slurm_job srun ...
How the training ended is known from the status that each rank records on its node, as in relaunch.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import FrameType

from model.cluster.cleanup import inspect_launch
from model.cluster.scontrol import read_job_fields, run_program
from model.runs.status import LAUNCH, ExitCode, State
from pipeline.runtime.interrupts import signal_handlers
from pipeline.runtime.progress import emit

MAX_RESTARTS = 5
"""Most restarts of a failed training in one start of the job. A requeued job starts to count again."""
RESTART_WAIT_S = 10.0
GRACE_S = 5
"""Time for the processes of a training to end after srun has."""
REPEAT_S = 15.0
"""Time between two requests to stop: ranks that were just being started miss the first."""
RUNNING = "RUNNING"
"""State of a job that Slurm is not ending by itself."""


class SlurmJob:
    """The Slurm job whose batch process this is."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """environment: of the batch process, as Slurm has set it."""
        self._id, self._nodes = environment["SLURM_JOB_ID"], environment["SLURM_JOB_NUM_NODES"]
        self._stop = False

    def run(self, command: Sequence[str]) -> int:
        """Run the srun command of a training until it is finished or the job has to end. Returns the exit code."""
        with signal_handlers((signal.SIGTERM, signal.SIGUSR1), self._note):
            return self._run(command)

    def _run(self, command: Sequence[str]) -> int:
        restarts = 0
        while True:
            launch = f"slurm-{self._id}-{time.time_ns()}"
            code = self._train(command, launch)
            states = self._states(launch)
            if State.USER_ERROR in states or code == ExitCode.USAGE:
                _report("not started again: the error above must be fixed first")
                return ExitCode.USAGE if code == ExitCode.USAGE else ExitCode.USER_ERROR
            if code == 0 and states == {State.FINISHED}:
                return ExitCode.FINISHED
            if self._stop or State.INTERRUPTED in states:
                return self._requeue()
            if restarts == MAX_RESTARTS or self._state() != RUNNING:
                _report(f"the training failed with exit code {code}; submit the job again to resume")
                return code or ExitCode.FAILED
            restarts += 1
            _report(f"the training failed with exit code {code}; restart {restarts} of {MAX_RESTARTS}")
            if self._wait(RESTART_WAIT_S):
                return self._requeue()

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self._stop = True

    def _train(self, command: Sequence[str], launch: str) -> int:
        """Run the command to its end. A stop request to this process is passed on to all ranks."""
        child = subprocess.Popen(command, env={**os.environ, LAUNCH: launch}, stdin=subprocess.DEVNULL)
        requested_at = -REPEAT_S
        while True:
            with suppress(subprocess.TimeoutExpired):
                return child.wait(0.5)
            if self._stop and time.monotonic() - requested_at >= REPEAT_S:
                # By default scancel signals all steps and not the batch process.
                run_program("scancel", "--signal=TERM", self._id)
                requested_at = time.monotonic()

    def _states(self, launch: str) -> set[str]:
        """Collect the last state of each rank from all nodes, and remove the records.

        Only the states of this node are known if Slurm starts no steps any more because it is ending the job.
        """
        step = ["srun", f"--nodes={self._nodes}", f"--ntasks={self._nodes}", "--ntasks-per-node=1"]
        inspect = [sys.executable, "-m", "model.cluster.cleanup", launch, str(GRACE_S)]
        done = run_program(*step, *inspect)
        answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        states = {state for answer in answers for state in answer["states"]}
        return states or set(inspect_launch(launch, GRACE_S).states)

    def _state(self) -> str:
        """Return the state of the job, such as RUNNING or CANCELLED; empty if Slurm does not answer."""
        fields, _ = read_job_fields(self._id)
        return fields.get("JobState", "")

    def _requeue(self) -> int:
        """Requeue the job, unless a user has cancelled it or Slurm requeues it anyway."""
        state = self._state()
        if state != RUNNING:
            _report(f"the training was interrupted; the job is {state or 'unknown'} and is not requeued here")
            return ExitCode.INTERRUPTED
        _report("the training was interrupted; requeueing the job, which then resumes")
        done = run_program("scontrol", "requeue", self._id)
        if done.returncode:
            _report(f"scontrol requeue: {done.stderr.strip()}; fix: submit the job again to resume, with --requeue")
        return ExitCode.INTERRUPTED

    def _wait(self, seconds: float) -> bool:
        """Wait before a restart. Returns True at once after a stop request."""
        end = time.monotonic() + seconds
        while not self._stop and time.monotonic() < end:
            time.sleep(0.2)
        return self._stop


def _report(line: str) -> None:
    emit(f"slurm job: {line}")


if __name__ == "__main__":
    sys.exit(SlurmJob(os.environ).run(sys.argv[1:]))
