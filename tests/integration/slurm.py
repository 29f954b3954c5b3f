"""A real Slurm on the two hosts of hosts.py: munged, slurmctld on host1, one slurmd per host.

All its files are in one folder. A partition of high priority preempts jobs of the other one by requeue.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.integration import hosts as lab
from tests.integration.conftest import ENVIRONMENT

TOOLS = ("sbatch", "scontrol", "slurmctld", "slurmd", "munged")
SBIN = f"{ENVIRONMENT['PATH']}:/usr/sbin"
CONF = """ClusterName=test
SlurmctldHost=host1({first})
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
SlurmUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/linear
MpiDefault=none
ReturnToService=2
KillWait=30
SchedulerParameters=sched_interval=1,batch_sched_delay=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName=host1 NodeAddr={first} CoresPerSocket=2 CPUs=2
NodeName=host2 NodeAddr={second} CoresPerSocket=2 CPUs=2
PartitionName=normal Nodes=ALL Default=YES PriorityTier=1 GraceTime=30
PartitionName=urgent Nodes=ALL PriorityTier=2
"""


def missing() -> str:
    """Why Slurm cannot run here, or nothing."""
    lacking = [tool for tool in TOOLS if shutil.which(tool, path=SBIN) is None]
    return lab.missing() or (f"not installed: {', '.join(lacking)}" if lacking else "")


@dataclass(frozen=True)
class Slurm:
    """A cluster of two nodes."""

    hosts: lab.Hosts
    folder: Path

    def run(self, work: Path, *command: str) -> str:
        """Run a command on host1, in the folder `work`, to its end. Returns its output."""
        done = subprocess.run(
            self.hosts.on(1, *command), cwd=work, env=self.environment, capture_output=True, text=True,
            timeout=60, check=False,
        )  # fmt: skip
        if done.returncode:
            raise AssertionError(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done.stdout

    @property
    def environment(self) -> dict[str, str]:
        """Variables of a user of the cluster."""
        return {**ENVIRONMENT, "PATH": SBIN, "SLURM_CONF": str(self.folder / "slurm.conf")}

    def job(self, number: str) -> dict[str, str]:
        """Return the fields of a job, as scontrol prints them."""
        words = self.run(self.folder, "scontrol", "--oneliner", "show", "job", number).split()
        return dict(word.split("=", 1) for word in words if "=" in word)


@contextmanager
def slurm_on_two_hosts(folder: Path) -> Iterator[Slurm]:
    """A Slurm that is taken down afterwards, with all that runs on its hosts."""
    folder.mkdir()
    first, second = lab.ADDRESSES
    (folder / "slurm.conf").write_text(CONF.format(first=first, second=second, folder=folder))
    (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")  # unused; v2 needs systemd
    (folder / "state").mkdir()
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o600)
    files = [f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "log", "seed")]
    munged = subprocess.Popen(
        ["/usr/sbin/munged", "--foreground", "--force", f"--socket={folder}/munge.socket", *files],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        with lab.two_hosts() as hosts:
            slurm = Slurm(hosts, folder)
            for host, *daemon in ((1, "slurmctld", "-D"), (1, "slurmd", "-D"), (2, "slurmd", "-D")):
                subprocess.Popen(
                    hosts.on(host, *daemon), env=slurm.environment, stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )  # fmt: skip
            _wait_for_nodes(slurm)
            yield slurm
    finally:
        munged.terminate()
        munged.wait()


def _wait_for_nodes(slurm: Slurm) -> None:
    deadline = time.monotonic() + 30
    ready = ""
    while ready.split() != ["idle", "idle"]:
        if time.monotonic() > deadline:
            raise RuntimeError(f"the nodes did not come up: {ready}")
        time.sleep(0.3)
        try:
            ready = slurm.run(slurm.folder, "sinfo", "-h", "-p", "normal", "-N", "-o", "%T")
        except AssertionError as error:
            ready = str(error)
