"""Debian trees: folders that hold a Debian system, unpacked from its packages, to build against and to run programs in.

    python package/trees.py bookworm arm64 build/trees/arm64 PACKAGE...

Nothing in a tree is started, and no maintainer script runs while it is made: that takes seconds, and a tree of another
architecture needs no emulation. dpkg and apt in it believe that its packages are installed, so that more can be added.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CACHE = Path(os.environ.get("EDGEFL_DEBS", Path.home() / ".cache/edgefl-debs"))
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
# What Debian's own tools need to install a package with maintainer scripts, and a person to find the way.
BASE = (
    *("adduser", "apt", "base-files", "base-passwd", "bash", "ca-certificates", "coreutils", "dash", "debianutils"),
    *(
        "diffutils",
        "dpkg",
        "findutils",
        "grep",
        "gzip",
        "hostname",
        "init-system-helpers",
        "libc-bin",
        "libpam-runtime",
    ),
    *("login", "mawk", "mount", "ncurses-base", "passwd", "perl-base", "procps", "python3", "python3-venv", "sed"),
    *("systemd", "tar", "tzdata", "util-linux"),
)
MERGED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")  # of /usr, as on any Debian of today
FOLDERS = (
    *("proc", "dev", "sys", "run", "tmp", "root", "mnt", "srv", "opt", "home", "usr/local/bin"),
    *("var/lib/dpkg/updates", "var/lib/dpkg/triggers"),
)
BINFMT = Path("/proc/sys/fs/binfmt_misc")
ELF_AARCH64 = r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
ELF_MASK = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"


def output(*command: str | Path) -> str:
    """What a command writes; it must succeed."""
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def mirror() -> str:
    """Where this machine takes Debian's packages from."""
    words = [word.rstrip("/") for word in output("apt-cache", "policy").split()]
    found = [word for word in words if word.startswith("http") and word.endswith("/debian")]
    if not found:
        sys.exit("apt has no source of Debian packages: see `apt-cache policy`")
    return found[0]


def fetch(suite: str, arch: str, packages: list[str], *, needs: bool = True) -> list[Path]:
    """The .deb files of `packages`, and with `needs` of all that they depend on; kept in CACHE."""
    home = CACHE / f"{suite}-{arch}"
    for folder in ("lists/partial", "cache/archives/partial"):
        (home / folder).mkdir(parents=True, exist_ok=True)
    (home / "status").write_text("")
    (home / "sources.list").write_text(f"deb [signed-by={KEYRING}] {mirror()} {suite} main\n")
    settings = {
        "Dir::State::Lists": home / "lists",
        "Dir::State::status": home / "status",
        "Dir::Cache": home / "cache",
        "Dir::Etc::sourcelist": home / "sources.list",
        "Dir::Etc::sourceparts": "-",
        "Dir::Etc::Parts": "-",
        "APT::Architecture": arch,
        "APT::Architectures": arch,
        "APT::Install-Recommends": "false",
        "APT::Sandbox::User": "root",
        "Acquire::Languages": "none",
    }
    apt = ["apt-get", "-qq", *(f"-o{key}={value}" for key, value in settings.items())]
    if not list((home / "lists").glob("*Packages*")):
        subprocess.run([*apt, "update"], check=True)
    if not needs:
        subprocess.run([*apt, "download", *packages], check=True, cwd=home)
        return [max(home.glob(f"{package}_*.deb")) for package in packages]
    simulated = output(*apt, "--simulate", "install", *packages)
    wanted = {tuple(line.split()[1:3]) for line in simulated.splitlines() if line.startswith("Inst ")}
    subprocess.run([*apt, "--yes", "--download-only", "install", *packages], check=True, stdout=subprocess.DEVNULL)
    names = {(name, version.strip("(")) for name, version in wanted}
    archives = home / "cache/archives"
    return [next(archives.glob(f"{name}_{version.replace(':', '%3a')}_*.deb")) for name, version in sorted(names)]


def unpack(debs: list[Path], tree: Path) -> None:
    """All files of `debs`, and dpkg's records of them, into `tree`."""
    for name in MERGED:
        (tree / "usr" / name).mkdir(parents=True, exist_ok=True)
        if not (tree / name).is_symlink():
            (tree / name).symlink_to(f"usr/{name}")
    info = tree / "var/lib/dpkg/info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "format").write_text("1\n")
    status = []
    for deb in debs:
        put = f"tar --extract --keep-directory-symlink --verbose --file - --directory '{tree}'"
        listing = output("sh", "-c", f"dpkg-deb --fsys-tarfile '{deb}' | {put}")
        control = output("dpkg-deb", "--info", deb, "control")
        fields = dict(line.split(": ", 1) for line in control.splitlines() if ": " in line and line[0] != " ")
        name = fields["Package"]
        if fields.get("Multi-Arch") == "same":
            name += f":{fields['Architecture']}"
        files = "".join("/" + line.removeprefix("./").rstrip("/") + "\n" for line in listing.splitlines())
        (info / f"{name}.list").write_text(files.replace("/\n", "/.\n", 1))
        status.append(control.rstrip("\n").replace("\n", "\nStatus: install ok installed\n", 1) + "\n")
    with (tree / "var/lib/dpkg/status").open("a") as records:
        records.write("".join(entry + "\n" for entry in status))


def make(suite: str, arch: str, tree: Path, packages: list[str]) -> None:
    """A tree with BASE and `packages`, in which programs can be run as root with `run`."""
    ready = tree / "etc/edgefl-tree"
    wanted = " ".join([suite, arch, *packages])
    if ready.exists() and ready.read_text() == wanted:
        return
    debs = fetch(suite, arch, [*BASE, *packages])
    shutil.rmtree(tree, ignore_errors=True)
    unpack(debs, tree)
    for name in ("passwd", "group"):
        shutil.copy(tree / f"usr/share/base-passwd/{name}.master", tree / "etc" / name)
    (tree / "etc/hosts").write_text("127.0.0.1 localhost\n")
    shutil.copy("/etc/resolv.conf", tree / "etc/resolv.conf")
    (tree / "etc/apt/sources.list").write_text(f"deb {mirror()} {suite} main\n")
    (tree / "usr/sbin/policy-rc.d").write_text("#!/bin/sh\nexit 101\n")  # nothing is started by installing it
    (tree / "usr/sbin/policy-rc.d").chmod(0o755)
    (tree / "usr/bin/awk").symlink_to("mawk")
    (tree / "etc/localtime").symlink_to("/usr/share/zoneinfo/UTC")
    for folder in FOLDERS:
        (tree / folder).mkdir(parents=True, exist_ok=True)
    (tree / "tmp").chmod(0o1777)
    emulate(arch)
    with mounted(tree):
        run(tree, ["ldconfig"])
        run(tree, ["pwconv"])
        run(tree, ["pam-auth-update", "--package", "--force"], stderr=subprocess.DEVNULL)
    ready.write_text(wanted)


def emulate(arch: str) -> None:
    """From here on programs of `arch` run on this machine: its kernel starts an emulator for them. It is Debian 13's:
    under that of Debian 12, qemu 7.2, Python crashes where it loads onnx."""
    ours = output("dpkg", "--print-architecture").strip()
    if arch == ours:
        return
    assert arch == "arm64", arch
    mount = ["mount", "-t", "binfmt_misc", "binfmt_misc", BINFMT]
    if not (BINFMT / "register").exists() and subprocess.run(mount).returncode:
        sys.exit("to run programs of arm64: root, and a kernel with binfmt_misc")
    if (BINFMT / "edgefl-aarch64").exists():
        return
    qemu = CACHE / "qemu"
    (deb,) = fetch("trixie", ours, ["qemu-user"], needs=False)
    subprocess.run(["dpkg-deb", "--extract", deb, qemu], check=True)
    # F: the kernel opens the emulator now, so that it is found in a tree that does not have it. The newest wins.
    interpreter = qemu / "usr/bin/qemu-aarch64"
    (BINFMT / "register").write_text(f":edgefl-aarch64:M::{ELF_AARCH64}:{ELF_MASK}:{interpreter}:OCF")


@contextmanager
def mounted(tree: Path) -> Iterator[None]:
    """The tree has /proc, /sys and /dev within the block."""
    needs_root()
    mounts = [("proc", tree / "proc"), ("sysfs", tree / "sys"), ("devtmpfs", tree / "dev")]
    done = []
    try:
        for kind, target in mounts:
            if not os.path.ismount(target):
                source = ["--bind", "/dev"] if kind == "devtmpfs" else ["-t", kind, kind]
                subprocess.run(["mount", *source, target], check=True)
                done.append(target)
        yield
    finally:
        for target in reversed(done):
            subprocess.run(["umount", "--lazy", target], check=True)


def needs_root() -> None:
    if os.geteuid() != 0:
        sys.exit("this needs root: it mounts /proc and changes its root directory (sudo make ...)")


PLAIN = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
}


def run(tree: Path, command: Sequence[str | Path], **options: Any) -> subprocess.CompletedProcess[str]:
    """A command with the tree as its root directory, and a plain environment to which `env` adds; it must succeed,
    unless `check` is false."""
    env = PLAIN | options.pop("env", {})
    return subprocess.run(["chroot", tree, *command], env=env, text=True, **{"check": True, **options})


if __name__ == "__main__":
    suite, arch, folder, *packages = sys.argv[1:]
    make(suite, arch, Path(folder), packages)
