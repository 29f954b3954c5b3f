"""Checks of a Slurm job before a training, for `promoter-bert doctor --slurm` inside the job."""

import re
import subprocess
from collections.abc import Iterator, Mapping

from model.cluster.doctor import Finding, TrainingPlan, check_together, make_finding
from model.cluster.scontrol import read_job_fields, run_program

SHORTEST_WARNING_S = 60
"""Shortest accepted time between the job's signal and its end: a step, an evaluation and a checkpoint fit in it."""
SIGNAL = re.compile(r"--signal[= ](?:[A-Z]+:)?(?P<name>\w+)(?:@(?P<seconds>\d+))?")
"""Option of sbatch, in a line #SBATCH of the job's script."""
STOP_SIGNALS = ("USR1", "SIGUSR1", "10", "TERM", "SIGTERM", "15")
VARIABLES = ("SLURM_JOB_ID", "SLURM_JOB_NODELIST", "SLURM_NNODES", "SLURM_NTASKS", "SLURM_NTASKS_PER_NODE")
"""Variables that examples/slurm/train.sbatch uses."""
EXAMPLE = "examples/slurm/train.sbatch"


def check_job(plan: TrainingPlan, environment: Mapping[str, str]) -> Iterator[Finding]:
    """Check the Slurm job of this process, then its nodes. Yields each finding as soon as it is known.

    environment: of the batch process, as Slurm has set it.
    """
    missing = [name for name in VARIABLES if name not in environment]
    job = environment.get("SLURM_JOB_ID", "none")
    host = f"job {job}"
    fix = f"run this in a job with --ntasks-per-node: sbatch {EXAMPLE} doctor"
    problem = f"not set: {', '.join(missing)}" if missing else ""
    yield make_finding(host, "variables", problem, "set by Slurm", fix)
    if missing:
        return
    fields, problem = read_job_fields(job)
    yield make_finding(host, "scontrol", problem, "answers", "check that slurmctld runs: scontrol ping")
    if not problem:
        yield _check_requeue(host, fields)
        yield _check_signal(host, fields, _read_script(job) + f" --signal={environment.get('SBATCH_SIGNAL', '')}")
    nodes = run_program("scontrol", "show", "hostnames", environment["SLURM_JOB_NODELIST"]).stdout.split()
    tasks, per_node = int(environment["SLURM_NTASKS"]), int(environment["SLURM_NTASKS_PER_NODE"])
    problem = "" if tasks == per_node * len(nodes) else f"{tasks} tasks on {len(nodes)} x {per_node}"
    fix = "set --nodes and --ntasks-per-node, and do not set --ntasks"
    yield make_finding(host, "tasks", problem, f"{per_node} per node on {', '.join(nodes)}", fix)
    answers = yield from check_together(nodes, nodes, plan, _run_on_node)
    for node, answer in answers.items():
        yield _check_gpus(node, answer["gpus"], per_node)


def _run_on_node(node: str, command: str) -> "subprocess.CompletedProcess[str]":
    """Run a shell command as one task on a node of the job. Steps of several checks may run at the same time."""
    place = ("--nodes=1", "--ntasks=1", "--ntasks-per-node=1", f"--nodelist={node}", "--overlap", "--gpu-bind=none")
    return run_program("srun", "--quiet", *place, "sh", "-c", command)


def _read_script(job: str) -> str:
    """Return the #SBATCH lines of a job's script; empty if the job has none."""
    script = run_program("scontrol", "write", "batch_script", job, "-").stdout
    return "\n".join(line for line in script.splitlines() if line.startswith("#SBATCH"))


def _check_requeue(host: str, fields: Mapping[str, str]) -> Finding:
    problem = "" if fields.get("Requeue") == "1" else "not allowed, so the job ends at its first interruption"
    fix = "add #SBATCH --requeue"
    return make_finding(host, "requeue", problem, "allowed", fix, warn=True)


def _check_signal(host: str, fields: Mapping[str, str], options: str) -> Finding:
    """Check that a signal asks for a checkpoint before the time limit. options: of sbatch, as text."""
    limit, match = fields.get("TimeLimit", "UNLIMITED"), SIGNAL.search(options)
    # Without a number, Slurm sends the signal 60 s before the limit.
    seconds = int((match and match["seconds"]) or 60)
    problem = ""
    if limit == "UNLIMITED":
        return make_finding(host, "time limit", "", "none", "")
    if match is None:
        problem = f"{limit}, and the script asks for no signal before it: work since the last checkpoint is lost"
    elif match["name"].upper() not in STOP_SIGNALS:
        problem = f"{limit}, with signal {match['name']}, on which training saves no checkpoint"
    elif seconds < SHORTEST_WARNING_S:
        problem = f"{limit}, with a signal only {seconds} s before it"
    ok = f"{limit}, with a signal {seconds} s before it"
    return make_finding(host, "time limit", problem, ok, "add #SBATCH --signal=B:USR1@180", warn=True)


def _check_gpus(node: str, gpus: list[str], tasks: int) -> Finding:
    """Compare the GPUs that a task sees with the tasks per node. Each task uses the GPU of its number on the node."""
    ok = f"{len(gpus)} x {gpus[0]} for {tasks} tasks" if gpus else "none: training on the CPU in float32"
    problem = f"{len(gpus)} for {tasks} tasks per node" if gpus and len(gpus) != tasks else ""
    fix = "set --ntasks-per-node and --gpus-per-node to the same number"
    return make_finding(node, "GPUs per task", problem, ok, fix, warn=len(gpus) > tasks)
