"""A machine of a page's own: its commands run as root in namespaces that nothing else sees.

Processes, network and the folders that a page writes to are its own: /etc, /opt, /srv, /root, /run, /usr/local and
/var/lib are overlays that end with it. One machine stands for all machines of a page, under all their names.
`played` says which commands are played instead of run.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PLAYED = Path(__file__).resolve().parent / "played" / "played"
NAMES = ("systemctl", "journalctl", "ssh", "scp", "rsync", "apt-get", "sudo", "python3", "pip", "mosquitto_sub")
HOSTS = "broker.example.org aggregator.example.org pi-01.local"
OWN = ("/etc", "/opt", "/srv", "/root", "/usr/local", "/var/lib", "/var/log")

_BEGIN = """
set -e
ip link set lo up
mount -t tmpfs tmpfs "$SCRATCH"
for folder in $OWN; do
    name=$(echo "$folder" | tr / _)
    mkdir -p "$SCRATCH/$name" "$SCRATCH/$name.work"
    mount -t overlay overlay -o "lowerdir=$folder,upperdir=$SCRATCH/$name,workdir=$SCRATCH/$name.work" "$folder"
done
mount -t tmpfs tmpfs /run
mkdir -p "$SCRATCH/bin"
for name in $NAMES; do ln -s "$PLAYED" "$SCRATCH/bin/$name"; done
echo "127.0.0.1 $HOSTS" >> /etc/hosts
chmod go+x /root  # where some machines have their Python, which other users run too
hash -r
cd "$CHECKOUT"
"""


class NoNamespaces(Exception):
    """This machine does not let the test have namespaces; says why."""


class PageMachine:
    """`run` gives one shell all commands, one after the other; it ends at the first that fails."""

    def __init__(self, scratch: Path, checkout: Path) -> None:
        self._scratch, self._checkout = scratch, checkout
        scratch.mkdir(parents=True, exist_ok=True)
        if os.geteuid():
            raise NoNamespaces("needs root, to install what the page installs")
        if (done := self._unshare("ip link set lo up", 20.0)).returncode:
            raise NoNamespaces(f"no namespaces here: {done.stdout}")

    def run(self, script: str, timeout_s: float) -> subprocess.CompletedProcess[str]:
        """Every command is printed before it runs. What it started is killed at the end."""
        return self._unshare(f"{_BEGIN}set -x\n{script}\n", timeout_s)

    def _unshare(self, script: str, timeout_s: float) -> subprocess.CompletedProcess[str]:
        bin_folder = Path(sys.executable).parent
        environment = {
            **os.environ,
            "SCRATCH": str(self._scratch),
            "CHECKOUT": str(self._checkout),
            "OWN": " ".join(OWN),
            "NAMES": " ".join(NAMES),
            "PLAYED": str(PLAYED),
            "PLAYED_PYTHON": str(bin_folder / "python"),
            "HOSTS": HOSTS,
            "EDGEFL_TRUST_CLOCK": "1",
            "PATH": f"{self._scratch}/bin:{bin_folder}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        }
        command = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "bash"]
        return subprocess.run(
            command,
            input=script,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout_s,
            env=environment,
            check=False,
        )
