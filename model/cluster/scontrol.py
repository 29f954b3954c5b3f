"""Run Slurm's programs, and read a job's fields from scontrol."""

import subprocess


def run_program(*command: str) -> "subprocess.CompletedProcess[str]":
    """Run a program and capture its output. If it cannot be started, the exit code is 1 and stderr says why."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        return subprocess.CompletedProcess(command, 1, "", f"{command[0]}: {error.strerror}")


def read_job_fields(job: str) -> tuple[dict[str, str], str]:
    """Return the fields of a job, such as TimeLimit and JobState, and the problem if Slurm does not answer."""
    done = run_program("scontrol", "--oneliner", "show", "job", job)
    fields = dict(word.split("=", 1) for word in done.stdout.split() if "=" in word)
    return fields, (done.stderr.strip() or "no answer").splitlines()[-1] if done.returncode else ""
