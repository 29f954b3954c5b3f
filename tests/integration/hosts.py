"""Two real hosts on one machine: network namespaces joined by a cable, each with its own name and sshd.

`ip netns exec` lays /etc/netns/NAME over /etc, so keys, known hosts, names and the sshd's settings of these hosts exist
only there; nothing in the user's ~/.ssh is read or written. Files are shared, as on a cluster's disk.
"""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

TOOLS = ("ip", "ssh", "ssh-keygen", "/usr/sbin/sshd", "pdsh")
ADDRESSES = ("10.77.0.1", "10.77.0.2")
SSH_CONFIG = """Host *
  IdentityFile /etc/ssh/key
  IdentitiesOnly yes
  StrictHostKeyChecking no
  UserKnownHostsFile /dev/null
  LogLevel ERROR
  BatchMode yes
  ConnectTimeout 5
"""
SSHD_CONFIG = """HostKey /etc/ssh/hostkey
AuthorizedKeysFile /etc/ssh/key.pub
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
UseDNS no
PidFile none
MaxStartups 100
"""


def missing() -> str:
    """Return why hosts cannot be made here; empty if they can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    lacking = [tool for tool in TOOLS if shutil.which(tool) is None]
    return f"not installed: {', '.join(lacking)}" if lacking else ""


@dataclass(frozen=True)
class Hosts:
    """host1 and host2, by the names of their namespaces."""

    namespaces: tuple[str, str]

    def on(self, host: int, *command: str) -> list[str]:
        """Return the command line that runs a command on host 1 or 2."""
        name = f'hostname host{host}; exec "$@"'
        return ["ip", "netns", "exec", self.namespaces[host - 1], "unshare", "--uts", "sh", "-c", name, "sh", *command]

    def received(self, host: int) -> int:
        """Return the number of bytes received over a host's cable so far."""
        statistics = "/sys/class/net/eth0/statistics/rx_bytes"
        return int(subprocess.check_output(self.on(host, "cat", statistics)))

    def processes(self, host: int, words: str) -> list[int]:
        """Return ids of a host's processes whose command line contains a text, oldest first."""
        result = subprocess.run(
            ["ip", "netns", "pids", self.namespaces[host - 1]], capture_output=True, text=True, check=False
        )
        pids = sorted(map(int, result.stdout.split()))
        return [pid for pid in pids if words in _command_line(pid)]

    def ranks(self, host: int) -> list[int]:
        """Return ids of a host's training processes."""
        return self.processes(host, "train.py --local_rank=")

    def cable(self, plugged: bool) -> None:
        """Pull host 2's cable, or plug it in again."""
        state = "up" if plugged else "down"
        subprocess.run(["ip", "-n", self.namespaces[1], "link", "set", "eth0", state], check=True)


@contextmanager
def two_hosts(first: Sequence[str] = (), second: Sequence[str] = ()) -> Iterator[Hosts]:
    """Hosts that reach each other by ssh without a password; everything is removed afterwards.

    first, second: arguments of mount(8) on that host, which give its ssh sessions files of their own.
    """
    tag = f"pb{os.getpid()}"
    hosts = Hosts((f"{tag}a", f"{tag}b"))
    try:
        _write_etc(hosts)
        _connect(hosts, tag)
        for host, own in ((1, first), (2, second)):
            prepare = " && ".join([*(f"mount {arguments}" for arguments in own), "exec /usr/sbin/sshd -D -e"])
            sshd = hosts.on(host, "unshare", "--mount", "sh", "-c", prepare)
            subprocess.Popen(sshd, stderr=subprocess.DEVNULL)
        _wait_for_ssh(hosts)
        yield hosts
    finally:
        _take_down(hosts)


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def _write_etc(hosts: Hosts) -> None:
    Path("/run/sshd").mkdir(parents=True, exist_ok=True)
    names = "".join(f"{address} host{i}\n" for i, address in enumerate(ADDRESSES, 1))
    first = Path("/etc/netns", hosts.namespaces[0])
    (first / "ssh").mkdir(parents=True)
    for key in ("key", "hostkey"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(first / "ssh" / key)], check=True)
    (first / "ssh" / "ssh_config").write_text(SSH_CONFIG)
    (first / "ssh" / "sshd_config").write_text(SSHD_CONFIG)
    for i, namespace in enumerate(hosts.namespaces, 1):
        folder = Path("/etc/netns", namespace)
        if i > 1:
            shutil.copytree(first, folder)
        # As Debian's installer leaves it: a host's own name points to where no other host reaches it.
        (folder / "hosts").write_text(f"127.0.0.1 localhost\n127.0.1.1 host{i}\n{names}")


def _connect(hosts: Hosts, tag: str) -> None:
    a, b = hosts.namespaces
    cable = f"ip link add {tag}x netns {a} type veth peer name {tag}y netns {b}"
    commands = [f"ip netns add {a}", f"ip netns add {b}", cable]
    for namespace, end, address in zip(hosts.namespaces, "xy", ADDRESSES, strict=True):
        commands += [
            f"ip -n {namespace} link set lo up",
            f"ip -n {namespace} link set {tag}{end} name eth0",
            f"ip -n {namespace} addr add {address}/24 dev eth0",
            f"ip -n {namespace} link set eth0 up",
        ]
    for command in commands:
        subprocess.run(command.split(), check=True)


def _wait_for_ssh(hosts: Hosts) -> None:
    deadline = time.monotonic() + 15
    for host in ("host1", "host2", "localhost"):
        while subprocess.run(hosts.on(1, "ssh", host, "true"), capture_output=True, check=False).returncode:
            if time.monotonic() > deadline:
                raise RuntimeError(f"ssh to {host} did not come up")
            time.sleep(0.1)


def _take_down(hosts: Hosts) -> None:
    for namespace in hosts.namespaces:
        for _ in range(20):
            result = subprocess.run(["ip", "netns", "pids", namespace], capture_output=True, text=True, check=False)
            pids = result.stdout.split()
            if not pids:
                break
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            time.sleep(0.1)
        subprocess.run(["ip", "netns", "del", namespace], capture_output=True, check=False)
        shutil.rmtree(Path("/etc/netns", namespace), ignore_errors=True)
